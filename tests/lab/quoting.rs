//! Names and owners of any bytes, none of which is ever executed.

use crate::support::hosts::Lab;

/// Names that a shell, a terminal or a tool could misread, in the syntax of bash.
const ODD: [&str; 7] = [
    r"'two  blanks '",
    r#"$'it\'s "quoted"'"#,
    r"'$(touch pwned)'",
    r"'`touch pwned`;&|'",
    r"$'new\nline\n'",
    r"-rf",
    r"$'\xff\xfe\x01'",
];

/// Asserts that no name was run as a command.
#[track_caller]
fn assert_nothing_was_run(lab: &Lab) {
    for host in ["ctl", "db1", "db2"] {
        let pwned = lab.host(host).sh("find / -xdev -name pwned; find /srv /run /tmp -name pwned");
        assert_eq!(pwned, "", "a name was run on {host}");
    }
}

/// Lists everything below a directory, whose name is in the syntax of bash, without owners.
#[track_caller]
fn listing(lab: &Lab, host: &str, directory: &str) -> String {
    lab.host(host).sh(&format!(
        "cd -- {directory}; find . -printf '%p %y %m %s %T@\\0' | sort -z | tr '\\0\\n' '\\n~' | cat -v"
    ))
}

#[test]
fn odd_names_work_as_paths_and_patterns() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    // Each name is used for the source, its directory, the target and the copy, and is excluded and kept
    // once.
    for (number, odd) in ODD.iter().enumerate() {
        let other = ODD[(number + 1) % ODD.len()];
        let base = format!("'{}'/{number}", scratch.path());
        let (source, target) = (format!("{base}/{odd}/{odd}"), format!("{base}/{odd}"));
        let all = ODD.map(|name| format!("./{name}")).join(" ");
        db1.sh(&format!(
            "mkdir -p -- {source}; cd -- {source}
            for name in {all}; do echo out >\"$name\"; echo kept >\"$name.kept\"; mkdir \"$name.d\"; cp \"$name\" \"$name.d\"; done
            cp -a . {base}/expected; cd {base}/expected
            for name in {all}; do rm \"$name\" \"$name.d/$name\"; done"
        ));
        // Removing entries has changed the times of directories.
        db1.sh(&format!("cd {base}/expected; find . -type d -print0 | while IFS= read -r -d '' d; do touch -r {source}/\"$d\" \"$d\"; done"));
        db2.sh(&format!("mkdir -p -- {target}"));
        let excludes: String = ODD.map(|name| format!(" --exclude={name}")).concat();
        let output = lab
            .program(&["--chown=mysql:mysql"])
            .words(&format!("{excludes} --as={other} -- db1:{source} db2:{target}"))
            .run()
            .expect_success();
        assert!(!output.stderr.contains("WARN"), "{odd}: {output}");
        let copy = format!("{target}/{other}");
        assert_eq!(
            listing(&lab, "db2", &copy),
            listing(&lab, "db1", &format!("{base}/expected")),
            "{odd}: {output}"
        );
        assert_eq!(
            db2.sh(&format!("cd -- {copy}; find . -printf '%U:%G\\n' | sort -u")),
            "121:122\n",
            "{odd}: {output}"
        );
    }
    assert_nothing_was_run(&lab);
}

#[test]
fn invalid_owners_are_a_usage_error() {
    let Some(lab) = Lab::get() else { return };
    for odd in ODD {
        let run = lab.program(&["db1:/etc/hostname", "db2:/srv"]).words(&format!("--chown={odd}")).run();
        assert_eq!(run.status.code(), Some(2), "{odd}: {run}");
        let reported = ["--chown", "invalid UTF-8"].iter().any(|text| run.stderr.contains(text));
        assert!(reported, "{odd}: {run}");
    }
    assert_nothing_was_run(&lab);
}
