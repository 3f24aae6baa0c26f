//! A plaintext set has no secrets in it, as far as they can be found.

use backstay_file_ops::Error;
use backstay_file_ops::code::CodeError;

use crate::support::Scene;

fn found(error: CodeError) -> Vec<String> {
    match error {
        CodeError::Files(Error::Secrets { findings }) => findings.iter().map(ToString::to_string).collect(),
        other => panic!("{other}"),
    }
}

/// A key that looks like one, put together here so that nobody takes this file for a leak.
fn key() -> String {
    format!("AKIA{}", "Q3ZJTOPLWKEY2357")
}

#[test]
fn tracked_staged_changed_and_untracked_secrets_stop_a_plaintext_set() {
    let scene = Scene::new();
    let git = scene.git("app");
    let mut options = scene.plain(git.path());
    options.uncommitted = true;
    git.commit(".env", "A=1\n");
    git.commit("deploy/id_ed25519", "x\n");
    assert_eq!(
        found(scene.try_back_up(&options).unwrap_err()),
        ["/.env (environment-file)", "/deploy/id_ed25519 (ssh-private-key)"]
    );
    options.allow = vec!["/.env".to_owned(), "id_ed25519".to_owned()];
    git.write("staged.pem", "-----BEGIN RSA PRIVATE KEY-----\nx\n");
    git.run(&["add", "staged.pem"]);
    git.write("terraform.tfstate", "{}");
    let stopped = found(scene.try_back_up(&options).unwrap_err());
    assert!(stopped.iter().any(|finding| finding.starts_with("/staged.pem")), "{stopped:?}");
    assert!(stopped.iter().any(|finding| finding.starts_with("/terraform.tfstate")), "{stopped:?}");
    // What is only in the index.
    git.run(&["rm", "-q", "--cached", "staged.pem"]);
    std::fs::remove_file(git.path().join("staged.pem")).unwrap();
    std::fs::remove_file(git.path().join("terraform.tfstate")).unwrap();
    git.write("config.py", format!("aws_access_key_id = \"{}\"\n", key()));
    git.run(&["add", "config.py"]);
    git.write("config.py", "");
    let stopped = found(scene.try_back_up(&options).unwrap_err());
    assert!(stopped.iter().any(|finding| finding.starts_with("/staged.patch:")), "{stopped:?}");
    assert!(scene.sets().is_empty());
    // What is not stored is not looked at, and what is encrypted neither.
    options.uncommitted = false;
    scene.back_up(&options);
    let mut encrypted = scene.options(git.path());
    encrypted.uncommitted = true;
    encrypted.name = "encrypted".to_owned();
    scene.back_up(&encrypted);
}

#[test]
fn without_recipients_it_refuses() {
    let scene = Scene::new();
    let git = scene.git("app");
    let mut options = scene.plain(git.path());
    options.plaintext = false;
    assert!(matches!(scene.try_back_up(&options), Err(CodeError::Files(Error::Plaintext))));
}
