#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: Apache-2.0

DOCUMENTATION = r"""
---
module: transfer
short_description: Copy a directory tree or a database from one host to others with transfer
description:
  - Makes sure that each target directory holds a copy of the source. Runs C(transfer) on the host of the play
    if one does not.
  - The host of the play is the controller of the run. Source and targets are other hosts that it reaches by
    SSH, or paths of its own. They do not have to be in the inventory.
  - A target whose final name exists already is not touched and counts as done. Its contents are not compared.
    With C(replace) in I(options), or in the configuration of the host, every run transfers and reports a
    change.
  - With several targets, only those that lack the copy get one.
  - Findings about the source count only if something has to be transferred. Its host must always be
    reachable.
options:
  source:
    description:
      - What to copy, as C(HOST:/PATH), or as C(/PATH) on the host of the play.
    type: str
    required: true
  targets:
    description:
      - The directories to copy it into, written like I(source). C(transfer) expands fleet notation such as
        C(db[2-9]:/srv).
    type: list
    elements: str
    required: true
  state:
    description:
      - C(present) means that the copy exists.
    type: str
    choices: [present]
    default: present
  options:
    description:
      - Options of C(transfer) by their long names, with C(_) or C(-). The module does not check them; an
        option that C(transfer) does not know gives exit code 2.
      - C(true) becomes C(--NAME). C(false) becomes C(--no-NAME) if that option exists, otherwise
        C(--NAME=false). A list repeats the option. So does a dictionary, as C(--NAME=KEY=VALUE). A null value
        leaves it out.
      - C(dry_run), C(json) and C(progress) are set by the module and are refused.
      - No option takes a password. Commands of C(hook) are visible in logs, results and the process lists of
        the hosts.
    type: dict
    default: {}
  executable:
    description:
      - The program, by path, or by a name that is looked up in C(PATH).
    type: str
    default: transfer
notes:
  - A transfer may take hours. Without C(async) it ends and is rolled back when the play loses its connection
    to the controller.
  - This module does not build replicas (C(transfer replica)).
requirements:
  - transfer on the host of the play
attributes:
  check_mode:
    support: full
    description: Runs C(transfer --dry-run), which connects to all hosts and reports what would be refused.
  diff_mode:
    support: full
    description: Shows the steps on each host, and how each would be rolled back.
author:
  - The transfer authors
"""

EXAMPLES = r"""
- name: Copy a directory to another host
  transfer:
    source: db1:/srv/sqldata
    targets: db2:/srv

- name: Copy it to a fleet, in the background, for up to a day
  transfer:
    source: db1:/srv/sqldata
    targets: ['db[2-9]:/srv']
    options:
      parallel_checksum: true
      exclude: ['*.err', /lost+found]
  async: "{{ ansible_check_mode | ternary(0, 86400) }}"
  poll: 15

- name: Take a hot backup and replace yesterday's
  transfer:
    source: db1:/run/mysqld/mysqld.sock
    targets: [backup1:/srv/backups]
    options:
      type: mariabackup
      as: db1
      replace: true
      prepare: true

- name: Wait for another transfer to the same name
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
    - The exit code of C(transfer); also 0 if there was nothing to do.
    - 128 + N is signal N. Null if C(transfer) could not be started.
  returned: always
  type: int
  sample: 0
exit_name:
  description:
    - The name of the exit code, one of C(done), C(failed), C(usage), C(verification_failed), C(refused),
      C(busy), C(leftovers), C(interrupted), C(killed), and C(unknown) for a code that this module does not
      know.
    - C(killed) is a run that could not end normally. The hosts roll back within the lease time.
  returned: always
  type: str
  sample: done
transferred:
  description: The targets that got their copy. In check mode those that would get it, as given.
  returned: always
  type: list
  elements: str
  sample: ['db3:/srv']
present:
  description: The targets whose final name existed already.
  returned: always
  type: list
  elements: str
  sample: ['db2:/srv']
msg:
  description: The problems and their fixes, one per line.
  returned: on failure
  type: str
  sample: 'db1: /srv/sqldata does not exist; check the path'
clean_command:
  description: The command that removes the leftovers from the hosts.
  returned: with exit code 6
  type: str
  sample: transfer clean db2
report:
  description: The last report of C(transfer --json), see docs/json.md. Null if there was none.
  returned: always
  type: dict
plan:
  description: The steps on each host, and how each would be rolled back. Null if there is nothing to do.
  returned: in check mode
  type: dict
command:
  description: The last command that was run.
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

# Options with a --no- form; all others are turned off with =false.
PAIRS = ('checksum', 'compress', 'encrypt', 'fsync', 'parallel-checksum', 'stop-replication')
# transferpy's name of one of them.
OLD_PAIRS = ('stop-slave',)
# Options that the module sets itself.
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
# Maximum number of bytes of standard error to keep.
MOST_STDERR = 1 << 20
STDOUT = 1


class Run:
    """Result of one run of the program."""

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
    """Returns a value as it is written on the command line."""
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return str(value)


def typed(options):
    """Returns the arguments for a dictionary of options."""
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
    """Returns a target of a report as it is written on the command line."""
    user, at, host = target['host'].rpartition('@')
    if ':' in host:
        host = '[%s]' % host
    return '%s%s%s:%s' % (user, at, host, target['path'])


def is_there(target, report):
    """Returns whether the final name exists, whatever else was found: the existing copy takes space, too."""
    return any(
        '{host}: {problem}; {fix}'.format(**finding) in (target['error'] or '')
        for finding in report['findings']
        if finding.get('kind') == 'exists'
    )


class Output:
    """Lines of a pipe, each handed on as soon as it arrives."""

    def __init__(self, pipe, take):
        self.pipe = pipe
        self.take = take
        self.rest = b''

    def read(self):
        """Reads the available bytes. Returns False at the end of the pipe."""
        chunk = os.read(self.pipe.fileno(), 65536)
        lines = (self.rest + chunk).split(b'\n')
        self.rest = lines.pop() if chunk else b''
        for line in lines:
            self.take(line.decode('utf-8', 'replace'))
        return bool(chunk)


class Collector:
    """Last report of a run, and the end of its standard error. Keeps no other event: a run may take hours."""

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
    """Runs the program to its end. Terminates it when the reader of this module's output is gone.

    The program has its own session, so that the signal that ends the play does not reach it twice: after a
    second signal it would not wait until all hosts have rolled back.
    """
    # The kernel sends TERM when this process dies, for whatever reason.
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

    collector = Collector()
    outputs = {
        child.stdout.fileno(): Output(child.stdout, collector.event),
        child.stderr.fileno(): Output(child.stderr, collector.word),
    }
    poll = select.poll()
    for number in outputs:
        poll.register(number, select.POLLIN)
    # With no events requested, poll still reports that the reader of standard output is gone.
    poll.register(STDOUT, 0)
    while outputs:
        for number, _ in poll.poll():
            if number == STDOUT:
                poll.unregister(STDOUT)
                end()
            elif not outputs[number].read():
                poll.unregister(number)
                del outputs[number]
    return Run(command, child.wait(), collector.report, collector.stderr)


def reasons(run):
    """Returns the problems of a run, one per line."""
    if run.killed:
        return [
            'transfer was killed by signal %d; the hosts roll back on their own within the lease time'
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
        return lines or ['transfer ended with exit code %d and printed nothing' % run.exit_code]
    lines = [line.strip() for line in (report['error'] or '').splitlines()]
    # After a refusal the errors of the targets repeat that of the run.
    if report['run'] is not None:
        lines.extend(
            '%s: %s' % (spelled(target), target['error'])
            for target in run.targets
            if target['error'] and target['error'] != report['error']
        )
    lines.extend('%(host)s: not rolled back: %(what)s' % leftover for leftover in report['leftovers'])
    return lines


def clean_command(run):
    """Returns the command that removes the leftovers, as the program printed it."""
    for line in run.stderr.splitlines():
        found = re.match(r'to roll back.*?: (transfer .*)$', line)
        if found:
            return found.group(1)
    return None


def shown(plan):
    """Returns a plan as text."""
    lines = []
    for host in plan['hosts']:
        lines.append('%(host)s (%(role)s)' % host)
        for step in host['steps']:
            # One line for each stage of a pipeline, and for each check.
            does = step['does'].replace(' | ', '\n              | ').replace('; ', ';\n              ')
            lines.append('  %-11s %s' % (step['kind'], does))
            if step['undo'] is not None:
                lines.append('    rollback  %s' % step['undo'])
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

    def record(run):
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
        """Returns the targets that lack the copy, after a run that may have been refused."""
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

    # Without skip-refused, so that the report has all targets.
    look = transfer(named, '--dry-run', **{'skip-refused': False})
    record(look)
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
            record(look)
            result['plan'] = plan
            if look.exit_code != 0:
                fail(look)
            result.update(changed=True, transferred=lack)
            module.exit_json(**result)

    while True:
        done = transfer(lack)
        record(done)
        # Another program may have created a final name since the dry run.
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
