#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: Apache-2.0

DOCUMENTATION = r"""
---
module: transfer
short_description: Copy a directory tree or a database from one host to others with transfer
description:
  - Makes sure that each target directory holds a copy of the source, and runs C(transfer) on the host of the play
    where one does not.
  - The host of the play is the controller of the run. Source and targets are other hosts that it reaches by SSH, or
    paths of its own. They need not be in the inventory.
  - A target whose final name exists already is left alone and counts as done. Its contents are not looked at. With
    C(replace) in I(options), or in the configuration of the host, every run transfers and is a change.
  - With several targets only those are transferred to that lack the copy.
  - What stands against the source counts only where something is to be transferred. Its host must always be reachable.
options:
  source:
    description:
      - What to copy, as C(transfer) reads it, C(HOST:/PATH) or C(/PATH) of the host of the play.
    type: str
    required: true
  targets:
    description:
      - The directories to copy it into, written like I(source). Fleet notation such as C(db[2-9]:/srv) is left
        to C(transfer).
    type: list
    elements: str
    required: true
  state:
    description:
      - The copy is there.
    type: str
    choices: [present]
    default: present
  options:
    description:
      - Options of C(transfer) by their long names, with C(_) or C(-). They are not checked here; one that
        C(transfer) does not know is exit code 2.
      - C(true) is C(--NAME). C(false) is C(--no-NAME) where there is such an option, and C(--NAME=false) elsewhere.
        A list repeats the option. A dictionary repeats it, too, as C(--NAME=KEY=VALUE). An empty value leaves it out.
      - C(dry_run), C(json) and C(progress) belong to the module and are refused.
      - No option takes a password. Commands of C(hook) are shown in logs, results and the processes of the hosts.
    type: dict
    default: {}
  executable:
    description:
      - The program, by its path or a name to be looked up in C(PATH).
    type: str
    default: transfer
notes:
  - A transfer may take hours. Without C(async) it ends, and everything is undone, when the connection of the play to
    its controller is lost.
  - Replicas (C(transfer replica)) are not made by this module.
requirements:
  - transfer on the host of the play
attributes:
  check_mode:
    support: full
    description: Asks C(transfer --dry-run), which connects to all hosts and finds what would be refused.
  diff_mode:
    support: full
    description: Shows the steps on each host, and how each would be undone.
author:
  - The transfer authors
"""

EXAMPLES = r"""
- name: Copy a directory to another host
  transfer:
    source: db1:/srv/sqldata
    targets: db2:/srv

- name: Copy it to a fleet, in the background, for as long as a day
  transfer:
    source: db1:/srv/sqldata
    targets: ['db[2-9]:/srv']
    options:
      parallel_checksum: true
      exclude: ['*.err', /lost+found]
  async: "{{ ansible_check_mode | ternary(0, 86400) }}"
  poll: 15

- name: Take a hot backup and replace the one of yesterday
  transfer:
    source: db1:/run/mysqld/mysqld.sock
    targets: [backup1:/srv/backups]
    options:
      type: mariabackup
      as: db1
      replace: true
      prepare: true

- name: Wait for somebody else's transfer to the same name
  transfer:
    source: db1:/srv/sqldata
    targets: [db2:/srv]
  register: copy
  until: copy.exit_code != 5
  retries: 60
  delay: 60
"""

RETURN = r"""
exit_code:
  description:
    - The exit code of C(transfer), 0 also where there was nothing to do.
    - 128 + N is signal N. Null where C(transfer) could not be started.
  returned: always
  type: int
  sample: 0
exit_name:
  description:
    - What that means, one of C(done), C(failed), C(usage), C(verification_failed), C(refused), C(busy), C(leftovers),
      C(interrupted), C(killed), and C(unknown) for a code that this module does not know.
    - C(killed) is a run that could not end by itself. The hosts undo it within the lease time.
  returned: always
  type: str
  sample: done
transferred:
  description: The targets that got their copy. In check mode those that would, as they were named.
  returned: always
  type: list
  elements: str
  sample: ['db3:/srv']
present:
  description: The targets that had the final name already.
  returned: always
  type: list
  elements: str
  sample: ['db2:/srv']
msg:
  description: What was wrong and how it is mended, a line each.
  returned: on failure
  type: str
  sample: 'db1: /srv/sqldata does not exist; check the path'
clean_command:
  description: What removes from the hosts what could not be undone.
  returned: with exit code 6
  type: str
  sample: transfer clean db2
report:
  description: The last report of C(transfer --json), as docs/json.md describes it. Null where there was none.
  returned: always
  type: dict
plan:
  description: What would be done on each host and how it would be undone. Null where there is nothing to do.
  returned: in check mode
  type: dict
command:
  description: What was run last.
  returned: always
  type: list
  elements: str
  sample: [transfer, --json, --progress=none, --, 'db1:/srv/sqldata', 'db3:/srv']
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess

from ansible.module_utils.basic import AnsibleModule

# Options with a --no- of their own; all others are turned off with =false.
PAIRS = ('checksum', 'compress', 'encrypt', 'fsync', 'parallel-checksum', 'stop-replication')
# What transferpy called one of them.
OLD_PAIRS = ('stop-slave',)
# Those that the module gives itself.
RESERVED = ('dry-run', 'json', 'progress')

REFUSED = 4
BUSY = 5
LEFTOVERS = 6
EXIT_NAMES = {
    0: 'done',
    1: 'failed',
    2: 'usage',
    3: 'verification_failed',
    REFUSED: 'refused',
    BUSY: 'busy',
    LEFTOVERS: 'leftovers',
}
# Bytes of standard error that are kept.
MOST_STDERR = 1 << 20
STDOUT = 1


class Run:
    """How a run of the program ended."""

    def __init__(self, command, status, report, stderr):
        self.command = command
        self.killed = status < 0
        self.exit_code = 128 - status if self.killed else status
        self.report = report
        self.stderr = stderr

    @property
    def exit_name(self):
        if self.exit_code > 128:
            return 'killed' if self.killed else 'interrupted'
        return EXIT_NAMES.get(self.exit_code, 'unknown')

    @property
    def targets(self):
        return (self.report or {}).get('targets', [])


def text(value):
    """A value as it is typed."""
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return str(value)


def typed(options):
    """Options as they are typed."""
    words = []
    for name, value in options.items():
        name = name.replace('_', '-')
        if value is None:
            continue
        if value is True:
            words.append('--' + name)
        elif value is False:
            words.append('--no-' + name if name in PAIRS + OLD_PAIRS else '--%s=false' % name)
        elif isinstance(value, dict):
            words.extend('--%s=%s=%s' % (name, key, text(item)) for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            words.extend('--%s=%s' % (name, text(item)) for item in value)
        else:
            words.append('--%s=%s' % (name, text(value)))
    return words


def spelled(target):
    """A target of a report as it is typed."""
    user, at, host = target['host'].rpartition('@')
    if ':' in host:
        host = '[%s]' % host
    return '%s%s%s:%s' % (user, at, host, target['path'])


def is_there(target, report):
    """Whether the final name was in the way, whatever else was: what is there takes its space, too."""
    return any(
        '{host}: {problem}; {fix}'.format(**finding) in (target['error'] or '')
        for finding in report['findings']
        if finding.get('kind') == 'exists'
    )


class Output:
    """What comes from a pipe, in lines of which each is looked at as it comes."""

    def __init__(self, pipe, take):
        self.pipe = pipe
        self.take = take
        self.rest = b''

    def read(self):
        """Reads what there is. False at the end."""
        chunk = os.read(self.pipe.fileno(), 65536)
        lines = (self.rest + chunk).split(b'\n')
        self.rest = lines.pop() if chunk else b''
        for line in lines:
            self.take(line.decode('utf-8', 'replace'))
        return bool(chunk)


class Ears:
    """The last report of a run, and the end of its standard error. Events may come for hours: none is kept."""

    def __init__(self):
        self.report = None
        self.stderr = ''

    def event(self, line):
        try:
            event = json.loads(line)
        except ValueError:
            return
        if isinstance(event, dict) and event.get('event') == 'report':
            self.report = event

    def word(self, line):
        self.stderr = (self.stderr + line + '\n')[-MOST_STDERR:]


def execute(command):
    """Runs the program to its end, and ends it when nobody is left who would hear of it.

    It is in a session of its own, so that what ends the play does not reach it twice: a second signal would not let it
    see to the end that all hosts have undone everything.
    """
    # The signal comes when this process dies, however that happens.
    child = subprocess.Popen(
        ['setpriv', '--pdeathsig', 'TERM', '--'] + command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    asked = []

    def end(*_):
        if not asked:
            asked.append(True)
            child.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)

    ears = Ears()
    outputs = {
        child.stdout.fileno(): Output(child.stdout, ears.event),
        child.stderr.fileno(): Output(child.stderr, ears.word),
    }
    poll = select.poll()
    for number in outputs:
        poll.register(number, select.POLLIN)
    # Nothing is asked of it; that its reader is gone is told all the same.
    poll.register(STDOUT, 0)
    while outputs:
        for number, _ in poll.poll():
            if number == STDOUT:
                poll.unregister(STDOUT)
                end()
            elif not outputs[number].read():
                poll.unregister(number)
                del outputs[number]
    return Run(command, child.wait(), ears.report, ears.stderr)


def reasons(run):
    """What was wrong, a line each."""
    if run.killed:
        return [
            'transfer was killed by signal %d; the hosts undo the run by themselves within its lease time'
            % (run.exit_code - 128)
        ]
    report = run.report
    if report is None:
        lines = []
        for line in run.stderr.splitlines():
            if line.startswith('Usage:'):
                break
            lines.append(line.strip())
        lines = [line for line in lines if line]
        return lines or ['transfer ended with exit code %d and said nothing' % run.exit_code]
    lines = [line.strip() for line in (report['error'] or '').splitlines()]
    # Those of a run that was refused are told as its own.
    if report['run'] is not None:
        lines.extend(
            '%s: %s' % (spelled(target), target['error'])
            for target in run.targets
            if target['error'] and target['error'] != report['error']
        )
    lines.extend('%(host)s: not rolled back: %(what)s' % leftover for leftover in report['leftovers'])
    return lines


def clean_command(run):
    """What the program says that removes what it left."""
    for line in run.stderr.splitlines():
        found = re.match(r'to (?:remove|start and run) .*?: (transfer .*)$', line)
        if found:
            return found.group(1)
    return None


def shown(plan):
    """A plan for people."""
    lines = []
    for host in plan['hosts']:
        lines.append('%(host)s (%(role)s)' % host)
        for step in host['steps']:
            # A stage of a pipeline and a check a line.
            does = step['does'].replace(' | ', '\n              | ').replace('; ', ';\n              ')
            lines.append('  %-11s %s' % (step['kind'], does))
            if step['undo'] is not None:
                lines.append('    undo      %s' % step['undo'])
    return ''.join(line + '\n' for line in lines)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            source=dict(type='str', required=True),
            targets=dict(type='list', elements='str', required=True),
            state=dict(type='str', choices=['present'], default='present'),
            options=dict(type='dict', default={}),
            executable=dict(type='str', default='transfer'),
        ),
        supports_check_mode=True,
    )
    source = module.params['source']
    named = module.params['targets']
    options = {name.replace('_', '-'): value for name, value in module.params['options'].items()}
    result = dict(
        changed=False, exit_code=None, exit_name='unknown', transferred=[], present=[], report=None, command=[]
    )
    if module.check_mode:
        result['plan'] = None

    if not named:
        module.fail_json(msg='targets is empty; name at least one', **result)
    for name in RESERVED:
        if name in options:
            module.fail_json(msg='option %s belongs to the module; see check mode for a dry run' % name, **result)
    executable = module.params['executable']
    if shutil.which(executable) is None:
        module.fail_json(
            msg='%s is not installed here; install the package transfer, or name the program with executable'
            % executable,
            **result
        )

    def transfer(targets, *more, **changes):
        words = typed(dict(options, **changes))
        command = [executable, '--json', '--progress=none'] + list(more) + words + ['--', source] + targets
        try:
            return execute(command)
        except OSError as error:
            module.fail_json(msg='transfer cannot be started: %s' % error, **result)

    warned = set()

    def tell(run):
        result.update(exit_code=run.exit_code, exit_name=run.exit_name, report=run.report, command=run.command)
        for finding in (run.report or {}).get('findings', []):
            warning = '{host}: {problem}; {fix}'.format(**finding)
            if finding['weight'] == 'warning' and warning not in warned:
                warned.add(warning)
                module.warn(warning)

    def fail(run):
        if run.exit_code == LEFTOVERS:
            result['clean_command'] = clean_command(run)
        module.fail_json(msg='\n'.join(reasons(run)), **result)

    def sort_out(run, lack):
        """Which targets lack the copy, where a run was refused."""
        there = []
        if run.exit_code == REFUSED:
            there = [target for target in run.targets if is_there(target, run.report)]
        if not there:
            return lack
        result['present'] += [spelled(target) for target in there]
        lack = [spelled(target) for target in run.targets if target not in there]
        if not lack:
            result.update(exit_code=0, exit_name='done')
            module.exit_json(**result)
        return lack

    # Nobody is left out, so that the report has all of them.
    look = transfer(named, '--dry-run', **{'skip-refused': False})
    tell(look)
    if look.exit_code not in (0, BUSY, REFUSED):
        fail(look)
    lack = sort_out(look, named)

    if module.check_mode or module._diff:
        if look.exit_code != 0:
            look = transfer(lack, '--dry-run')
        plan = (look.report or {}).get('plan')
        if module._diff and plan:
            result['diff'] = dict(prepared=shown(plan))
        if module.check_mode:
            tell(look)
            result['plan'] = plan
            if look.exit_code != 0:
                fail(look)
            result.update(changed=True, transferred=lack)
            module.exit_json(**result)

    while True:
        done = transfer(lack)
        tell(done)
        # Somebody may have made the name since.
        rest = sort_out(done, lack)
        if rest is lack:
            break
        lack = rest
    result['transferred'] = [
        spelled(target) for target in done.targets if target['status'] in ('done', 'published')
    ]
    result['changed'] = bool(result['transferred'])
    if done.exit_code != 0:
        fail(done)
    module.exit_json(**result)


if __name__ == '__main__':
    main()
