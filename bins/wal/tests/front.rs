//! The programs that a server starts, and the one that they become.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use support::{Stage, ended, program_path, segment_name};

#[test]
fn what_a_server_starts_for_every_segment_is_small() {
    let length = |path: &str| fs::metadata(path).unwrap().len();
    for name in ["archive-wal", "restore-wal"] {
        let (front, whole) = (length(program_path(name)), length(program_path("backstay-wal")));
        // In a release build it is less than a sixth.
        assert!(front * 2 < whole, "{name} has {front} bytes, the whole program {whole}");
    }
}

#[test]
fn a_call_that_cannot_become_the_whole_program_fails_and_names_it() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    stage.put(1, 7);
    let segment = format!("pg_wal/{}", segment_name(1));
    let name = segment_name(1);
    for (program, args, code) in [
        ("archive-wal", vec![&*segment], 2),
        ("restore-wal", vec![&*name, "pg_wal/RECOVERYXLOG"], 202),
        // As a server would take it for a file.
        ("restore-wal", vec!["--help"], 202),
    ] {
        let alone = folder.path().join(program);
        fs::copy(program_path(program), &alone).unwrap();
        let whole = stage.command(program, &args);
        let mut command = Command::new(&alone);
        command.args(whole.get_args()).current_dir(stage.data()).env_clear();
        command.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let call = ended(command);
        assert_eq!(call.code, code, "{program} {args:?}: {call:?}");
        assert!(call.stderr.contains("backstay-wal: No such file"), "{call:?}");
        assert!(call.stderr.contains(&format!("hint: install it beside {program}")), "{call:?}");
    }
}

#[test]
fn the_whole_program_under_a_name_of_its_own_does_nothing() {
    for arg0 in ["backstay-wal", "/usr/bin/backstay-wal", ""] {
        let mut command = Command::new(program_path("backstay-wal"));
        command.arg0(arg0).args(["000000010000000000000001", "pg_wal/RECOVERYXLOG"]);
        let call = ended(command);
        // Above 125: it may stand in a restore_command.
        assert_eq!(call.code, 202, "{call:?}");
        assert!(call.stderr.contains("archive-wal and restore-wal"), "{call:?}");
    }
}

#[test]
fn help_and_mistakes_carry_the_name_that_was_called() {
    for (program, refused) in [("archive-wal", 2), ("restore-wal", 202)] {
        let call = |flag| {
            let mut command = Command::new(program_path(program));
            command.arg(flag);
            ended(command)
        };
        let help = call("--help");
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains(&format!("Usage: {program} ")), "{help:?}");
        let mistaken = call("--no-such-flag");
        assert_eq!(mistaken.code, refused, "{mistaken:?}");
        assert!(mistaken.stderr.contains(&format!("Usage: {program} ")), "{mistaken:?}");
    }
}
