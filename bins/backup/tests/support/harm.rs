//! What can happen to a repository before a program is run.

use std::process::Command;

use serde_json::{Value, json};

use super::Bench;

/// One kind of harm.
impl Bench {
    /// A folder that is no repository, because other things are in it.
    pub fn other_things(&self) {
        std::fs::create_dir(self.path("other")).unwrap();
        self.write("other/letter.txt", "somebody's file");
    }

    /// Makes a repository one of a format that is not known yet.
    pub fn make_newer(&self, repository: &str) {
        let description = json!({ "format": 2, "id": "0".repeat(32), "created": "2036-01-01T00:00:00Z" });
        self.seal(&format!("{repository}/backstay.json"), &description);
    }

    /// Makes the only set of a repository one of a format that is not known yet.
    pub fn make_set_newer(&self, repository: &str) {
        let path = self.manifest(repository);
        let sealed: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut manifest = sealed["manifest"].clone();
        manifest["format"] = 2.into();
        self.seal(path.to_str().unwrap(), &manifest);
    }

    fn seal(&self, name: &str, document: &Value) {
        let sealed = backstay_backup_core::manifest::seal(document).unwrap();
        std::fs::remove_file(self.path(name)).unwrap();
        std::fs::write(self.path(name), sealed).unwrap();
    }

    /// Cuts the only manifest of a repository in the middle.
    pub fn cut_manifest(&self, repository: &str) {
        let manifest = self.manifest(repository);
        let content = std::fs::read(&manifest).unwrap();
        std::fs::remove_file(&manifest).unwrap();
        std::fs::write(&manifest, &content[..content.len() / 2]).unwrap();
    }

    /// Puts a copy of the sets below the stanza `other`, which they do not belong to.
    pub fn copy_to_another_stanza(&self, repository: &str) {
        let folder = self.path(repository);
        std::fs::create_dir(folder.join("other")).unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(folder.join("main/sets")).arg(folder.join("other"));
        assert!(copy.status().unwrap().success());
    }

    /// Gives every file of a repository a time a year ahead, as a host does whose clock was that wrong.
    pub fn move_into_the_future(&self, repository: &str) {
        let mut find = Command::new("find");
        find.arg(self.path(repository)).args(["-exec", "touch", "--date=1 year", "{}", "+"]);
        assert!(find.status().unwrap().success());
    }
}
