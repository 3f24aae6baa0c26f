//! The section `files`: everything that a cron line would otherwise say.

use std::fs;

use crate::support::{Bench, files};
use crate::{object, shell};

/// As cron starts it: an almost empty environment, and `--config` alone.
fn bench(section: &str) -> Bench {
    let bench = Bench::new();
    fs::create_dir(bench.path("etc")).unwrap();
    for (name, content) in [("app.conf", "listen = 80\n"), ("app.log", "line\n"), ("example.env", "A=1\n")] {
        bench.write(&format!("etc/{name}"), content);
    }
    let text = format!("[[repository]]\nname = \"local\"\npath = \"local\"\n\n[files]\n{section}");
    bench.write("own.toml", &text);
    bench
}

const ALONE: [&str; 2] = ["--config", "own.toml"];

#[test]
fn the_configuration_alone_says_what_is_backed_up() {
    let section = "name = \"host\"\npaths = [\"etc\"]\nexclude = [\"*.log\"]\nallow = [\"example.env\"]\n\
                   plaintext = true\npackages = true\n";
    let bench = bench(section);
    let (ended, report) = bench.json("backup-config", &ALONE);
    assert_eq!(ended.code, 0, "{ended:?}");
    let told = (&report["name"], &report["files"], &report["encrypted"]);
    assert_eq!(told, (&"host".into(), &2.into(), &false.into()));
    let archive = object(&bench, "files.tar.zst").display().to_string();
    let names = shell(&format!("zstd -dc '{archive}' | tar -t"), &bench.path(""));
    assert!(
        names.contains("app.conf") && names.contains("example.env") && !names.contains("app.log"),
        "{names}"
    );
    object(&bench, "packages.txt");
    // What is said on the command line replaces it.
    let other = [&ALONE[..], &["--name", "other", "--exclude", "*.env", "--force"]].concat();
    let (_, report) = bench.json("backup-config", &other);
    assert_eq!((&report["name"], &report["files"]), (&"other".into(), &2.into()), "{report}");
}

#[test]
fn its_own_recipients_count_and_a_secret_still_stops_it() {
    let keys = [(); 2].map(|()| age::x25519::Identity::generate().to_public().to_string());
    let recipients = format!("recipients = [{:?}, {:?}]\n", keys[0], keys[1]);
    let sealed = bench(&format!("paths = [\"etc\"]\n{recipients}"));
    let (_, report) = sealed.json("backup-config", &ALONE);
    assert_eq!(report["encrypted"], true, "{report}");
    let manifest = fs::read_to_string(sealed.manifest("local")).unwrap();
    assert!(keys.iter().all(|key| manifest.contains(key)), "{manifest}");

    let open = bench("paths = [\"etc\"]\nplaintext = true\n");
    let stopped = open.run("backup-config", &ALONE).expect(2).stderr;
    assert!(stopped.contains("example.env (environment-file)"), "{stopped}");
    assert!(files(&open.path("local/main/sets")).is_empty());
    let refused = bench("paths = [\"etc\"]\n").run("backup-config", &ALONE).expect(2).stderr;
    assert!(refused.contains("everybody who reads the repository"), "{refused}");
    let nothing = bench("").run("backup-config", &ALONE).expect(2).stderr;
    assert!(
        nothing.contains("nothing is listed\nhint: ") && nothing.contains("section `files`"),
        "{nothing}"
    );
}
