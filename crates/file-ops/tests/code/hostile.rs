//! Repositories that want more than to be read, and sets that want more than to be restored.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::manifest::{Codec, ObjectEntry, SetKind, Source};
use backstay_backup_core::process::SystemRunner;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_file_ops::code::{CodeError, CodeOptions, KIND, RestoreOptions};
use backstay_file_ops::tar::{END, Entry, EntryKind, Extent, encode, padding};
use backstay_file_ops::{ArchivePath, Attributes};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{Git, Scene, shell};

/// Configuration that runs a program wherever git has a place for one.
const PROGRAMS: [&str; 20] = [
    "core.fsmonitor",
    "core.sshCommand",
    "core.pager",
    "core.editor",
    "core.gitProxy",
    "core.askPass",
    "core.alternateRefsCommand",
    "diff.external",
    "diff.evil.textconv",
    "diff.evil.command",
    "filter.evil.clean",
    "filter.evil.smudge",
    "filter.evil.process",
    "merge.evil.driver",
    "credential.helper",
    "uploadpack.packObjectsHook",
    "gpg.program",
    "remote.origin.uploadpack",
    "sequence.editor",
    "alias.status",
];

#[test]
fn nothing_that_a_repository_names_is_run() {
    let mut scene = Scene::new();
    let git = scene.git("app");
    git.commit(".gitattributes", "* filter=evil diff=evil merge=evil\n");
    git.lfs(b"large");
    let trap = scene.path("trap.sh");
    let sprung = scene.path("sprung");
    fs::write(&trap, format!("#!/bin/sh\necho \"$0 $*\" >>{}\ncat\n", sprung.display())).unwrap();
    shell("chmod 755 trap.sh; touch app/README", &scene.path(""));
    for key in PROGRAMS {
        git.run(&["config", key, trap.to_str().unwrap()]);
    }
    git.run(&["config", "filter.evil.required", "true"]);
    git.run(&["config", "alias.for-each-ref", &format!("!{}", trap.display())]);
    git.run(&["config", "remote.origin.url", &format!("ext::{}", trap.display())]);
    git.run(&["config", "protocol.allow", "always"]);
    git.run(&["config", "core.worktree", "/etc"]);
    // A value that is a line of configuration where it is written as it is.
    git.run(&["config", "core.eol", &format!("lf\n[filter \"evil\"]\n\tclean = {}", trap.display())]);
    let hooks = [
        "reference-transaction",
        "post-index-change",
        "fsmonitor-watchman",
        "post-checkout",
        "pre-auto-gc",
        "post-rewrite",
        "update",
        "pre-commit",
        "post-applypatch",
        "applypatch-msg",
        "pre-applypatch",
    ];
    for hook in hooks {
        fs::create_dir_all(git.path().join(".git/hooks")).unwrap();
        fs::copy(&trap, git.path().join(".git/hooks").join(hook)).unwrap();
    }
    fs::write(git.path().join("README"), "changed\n").unwrap();
    git.write("untracked", "u");
    // What an environment can say to git.
    let trap = trap.display().to_string();
    let mut environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    for (name, value) in [
        ("GIT_DIR", "/nowhere"),
        ("GIT_INDEX_FILE", "/nowhere"),
        ("GIT_OBJECT_DIRECTORY", "/nowhere"),
        ("GIT_EXTERNAL_DIFF", &trap),
        ("GIT_SSH", &trap),
        ("GIT_PAGER", &trap),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "core.fsmonitor"),
        ("GIT_CONFIG_VALUE_0", &trap),
        ("GIT_TRACE", "/nowhere/trace"),
        ("GIT_EXEC_PATH", "/nowhere"),
    ] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    scene.runner = Arc::new(SystemRunner::new(&environment));
    let mut options = scene.options(git.path());
    options.uncommitted = true;
    options.mark = true;
    let report = scene.back_up(&options);
    assert!(report.receipt.manifest.complete && report.mark.unwrap().is_ok());
    let dirty = report.state.dirty.unwrap();
    assert_eq!((dirty.unstaged, dirty.untracked), (1, 1));
    let mut to = RestoreOptions::new(&scene.path("back"));
    to.uncommitted = true;
    scene.try_restore(&to).unwrap();
    assert_eq!(fs::read_to_string(scene.path("back/README")).unwrap(), "changed\n");
    assert!(!sprung.exists(), "{}", fs::read_to_string(&sprung).unwrap_or_default());
    // The trap works: git itself springs it.
    let _ = git.command(&["--git-dir=.git", "--work-tree=.", "diff"]).output();
    assert!(sprung.exists());
}

#[test]
fn pipes_in_the_place_of_files_make_nobody_wait() {
    let scene = Scene::new();
    let mut options = scene.options(&scene.path("app"));
    options.timeout = Duration::from_secs(3);
    options.uncommitted = true;
    for file in ["index", "config", "HEAD", "packed-refs", "info/exclude", "shallow", "commondir"] {
        let _ = fs::remove_dir_all(scene.path("app"));
        let git = scene.git("app");
        let path = git.path().join(".git").join(file);
        let _ = fs::remove_file(&path);
        shell(&format!("mkdir -p $(dirname '{0}'); mkfifo '{0}'", path.display()), &scene.path(""));
        let outcome = scene.try_back_up(&options);
        assert!(outcome.is_err(), "{file}: {outcome:?}");
        if let Err(CodeError::TimedOut { what, .. }) = outcome {
            println!("{file}: git {what} was ended");
        }
    }
    assert!(scene.sets().is_empty());
}

/// A good set, taken apart into plain files.
fn good(scene: &Scene) -> (BTreeMap<String, Vec<u8>>, Value) {
    let git = scene.git("app");
    std::os::unix::fs::symlink("/tmp", git.path().join("tracked-link")).unwrap();
    git.run(&["add", "."]);
    git.run(&["commit", "-q", "-m", "link"]);
    git.run(&["tag", "before", "HEAD~1"]);
    git.lfs(b"large content");
    git.write("README", "changed\n");
    git.write("untracked", "u");
    let mut options: CodeOptions = scene.plain(git.path());
    options.uncommitted = true;
    options.codec = Codec::None;
    let report = scene.back_up(&options);
    let folder = &scene.sets()[0];
    let objects = report.receipt.manifest.objects.iter();
    let objects =
        objects.map(|entry| (entry.name.clone(), fs::read(folder.join(&entry.name)).unwrap())).collect();
    (objects, report.receipt.manifest.facts.clone())
}

/// Stores a set as somebody could who is allowed to write.
fn forge(scene: &Scene, objects: &BTreeMap<String, Vec<u8>>, facts: &Value) {
    scene.runtime.block_on(async {
        let stanza = backstay_backup_core::id::Stanza::parse("main").unwrap();
        let mut source = Source::default();
        source.database = "app".to_owned();
        let spec = SetSpec::new(SetKind::new(KIND), stanza, "forged").source(source);
        let writer = SetWriter::begin(&scene.repositories, spec, DataPath::default()).await.unwrap();
        let mut entries: Vec<ObjectEntry> = Vec::new();
        for (name, content) in objects {
            let input = futures::stream::iter([Ok(Bytes::from(content.clone()))]);
            entries.push(writer.object(name, Codec::None, input).await.unwrap());
        }
        let now = scene.repositories.clock().now();
        writer.commit(SetContents::new(now, entries).facts(facts.clone())).await.unwrap();
    });
}

/// An archive as the writer makes them, with these files and links.
fn tar(entries: &[(&str, EntryKind<'_>)]) -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.mode = 0o755;
    let mut bytes = Vec::new();
    for (path, kind) in entries {
        let path = ArchivePath::parse(path.as_bytes()).unwrap();
        encode(&Entry { path: &path, kind: *kind, attributes: &attributes }, &mut bytes);
        if let EntryKind::File(size) = kind {
            bytes.resize(bytes.len() + usize::try_from(*size).unwrap() + padding(*size), b'x');
        }
    }
    bytes.extend(END);
    bytes
}

fn edit(objects: &BTreeMap<String, Vec<u8>>, edit: impl FnOnce(&mut Value)) -> BTreeMap<String, Vec<u8>> {
    let mut objects = objects.clone();
    let mut state: Value = serde_json::from_slice(&objects["state.json"]).unwrap();
    edit(&mut state);
    objects.insert("state.json".to_owned(), serde_json::to_vec(&state).unwrap());
    objects
}

/// A commit that a ref stands for, and that is not the one checked out.
fn other_tip(state: &Value) -> Value {
    let refs = state["refs"].as_array().unwrap();
    let other = refs.iter().find(|one| one["id"] != state["head"]["commit"]);
    other.unwrap()["id"].clone()
}

fn with(objects: &BTreeMap<String, Vec<u8>>, name: &str, content: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let mut objects = objects.clone();
    objects.insert(name.to_owned(), content);
    objects
}

#[test]
fn forged_sets_are_refused_and_write_nothing() {
    let scene = Scene::new();
    let (good, facts) = good(&scene);
    let id = facts["tips"][0].as_str().unwrap().to_owned();
    let stored = facts["lfs"]["stored"][0].as_str().unwrap();
    let lfs_name = format!("lfs/objects/{}/{}/{stored}", &stored[..2], &stored[2..4]);
    let patch = |path: &str| {
        format!(
            "diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
        )
    };
    let named = |name: &str| {
        let name = json!({ "name": name, "id": id });
        edit(&good, |state| {
            let refs = state["refs"].as_array_mut().unwrap();
            refs.push(name);
            refs.sort_by_key(|one| one["name"].as_str().unwrap().to_owned());
        })
    };
    let untracked = |entries: &[(&str, EntryKind<'_>)]| with(&good, "untracked.tar", tar(entries));
    let lfs = |entries: &[(&str, EntryKind<'_>)]| with(&good, "lfs.tar", tar(entries));
    let file = EntryKind::File(512);
    let link = EntryKind::Symlink(b"/tmp");
    let unfit = "diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-another\n+x\n";
    let hole = Extent { offset: 1 << 40, length: 0 };
    let cases: Vec<(&str, BTreeMap<String, Vec<u8>>)> = vec![
        ("a ref that leads out", named("refs/../../escaped")),
        ("a ref that is a line more", named("refs/heads/x\nffff refs/heads/y")),
        ("a ref that is an option", named("--upload-pack=x")),
        ("a ref that is no ref", named("config")),
        ("HEAD elsewhere", edit(&good, |state| state["head"]["branch"] = "refs/../config".into())),
        ("HEAD is a line more", edit(&good, |state| state["head"]["branch"] = "refs/heads/x\n[core]".into())),
        (
            "a symbolic ref elsewhere",
            edit(&good, |state| state["refs"][0]["target"] = "../../../etc/passwd".into()),
        ),
        ("an object that is none", edit(&good, |state| state["refs"][0]["id"] = "../../x".into())),
        ("another commit", edit(&good, |state| state["refs"][0]["id"] = "0".repeat(40).into())),
        ("a format of tomorrow", edit(&good, |state| state["format"] = 2.into())),
        ("no state", with(&good, "state.json", b"{}".to_vec())),
        (
            "an object format with an option",
            edit(&good, |state| state["object-format"] = "sha1 --bare".into()),
        ),
        (
            "an LFS object more",
            edit(&good, |state| {
                state["lfs"].as_array_mut().unwrap().push(json!({"id": "a".repeat(64), "size": 1}));
            }),
        ),
        ("another commit checked out", edit(&good, |state| state["head"]["commit"] = other_tip(state))),
        (
            "a tag less",
            edit(&good, |state| {
                state["refs"].as_array_mut().unwrap().retain(|one| one["name"] != "refs/tags/before");
            }),
        ),
        (
            "a ref twice",
            edit(&good, |state| {
                let mut twice = state["refs"][0].clone();
                twice["id"] = other_tip(state);
                state["refs"].as_array_mut().unwrap().insert(0, twice);
            }),
        ),
        ("no bundle", with(&good, "repository.bundle", b"# v2 git bundle\n\n".to_vec())),
        ("a bundle of nothing", with(&good, "repository.bundle", Vec::new())),
        (
            "a bundle with another pack",
            with(&good, "repository.bundle", {
                let mut bytes = good["repository.bundle"].clone();
                let middle = bytes.len() - 40;
                bytes[middle] ^= 1;
                bytes
            }),
        ),
        ("a hook among the untracked", untracked(&[(".git/hooks/post-checkout", file)])),
        ("a configuration of a submodule", untracked(&[("sub/.GIT/config", file)])),
        ("through a link of the archive", untracked(&[("link", link), ("link/escaped", file)])),
        ("through a link of the commit", untracked(&[("tracked-link/escaped", file)])),
        ("below a file of the commit", untracked(&[("README/escaped", file)])),
        ("in the place of a file of the commit", untracked(&[("README", file)])),
        ("a bomb among the untracked", untracked(&[("bomb", EntryKind::Sparse(1 << 40, &[hole]))])),
        ("a patch that does not fit", with(&good, "unstaged.patch", unfit.as_bytes().to_vec())),
        ("an LFS archive through a link", lfs(&[("lfs", link), ("lfs/escaped", file)])),
        ("LFS objects that are hooks", lfs(&[("hooks/post-checkout", file)])),
        ("an LFS object of another name", lfs(&[(lfs_name.as_str(), file)])),
        ("a patch that leads out", with(&good, "unstaged.patch", patch("../escaped").into_bytes())),
        (
            "a patch of the repository's own folder",
            with(&good, "unstaged.patch", patch(".git/hooks/post-checkout").into_bytes()),
        ),
        ("a staged patch that leads out", with(&good, "staged.patch", patch("../escaped").into_bytes())),
    ];
    let before = fs::read_dir(scene.path("")).unwrap().count();
    let mut to = RestoreOptions::new(&scene.path("back"));
    to.uncommitted = true;
    forge(&scene, &good, &facts);
    scene.try_restore(&to).unwrap();
    assert!(!scene.path("back/.git/hooks").exists());
    fs::remove_dir_all(scene.path("back")).unwrap();
    let number = cases.len();
    for (case, objects) in cases {
        forge(&scene, &objects, &facts);
        let refused = scene.try_restore(&to).expect_err(case);
        println!("{case}: {}", refused.lines().next().unwrap_or_default());
        assert!(!scene.path("back").exists() && !scene.path("escaped").exists(), "{case}");
        assert!(!Path::new("/tmp/escaped").exists(), "{case}");
    }
    let after = fs::read_dir(scene.path("")).unwrap().count();
    assert_eq!(after, before);
    println!("{number} of {number} forged sets refused");
}

#[test]
fn files_with_hostile_names_in_a_commit_stay_where_they_belong() {
    let scene = Scene::new();
    let git = scene.git("app");
    // Git itself would not make such a tree; somebody did by hand.
    let blob = git.run(&["hash-object", "-w", "README"]).trim().to_owned();
    for path in [".git", "..", ".GIT"] {
        let tree = format!("100644 blob {blob}\t{path}\n");
        let made = make_tree(&git, &tree);
        let Some(made) = made else { continue };
        let commit = git.run(&["commit-tree", "-m", "evil", &made]);
        git.run(&["update-ref", "refs/heads/main", commit.trim()]);
        let stored = scene.try_back_up(&scene.options(git.path()));
        // Taken or refused: it never lands anywhere.
        if stored.is_ok() {
            let _ = scene.try_restore(&RestoreOptions::new(&scene.path("back")));
            assert!(!scene.path("back/.git").is_file());
            let _ = fs::remove_dir_all(scene.path("back"));
        }
    }
}

fn make_tree(git: &Git, lines: &str) -> Option<String> {
    fs::write(git.path().join(".git/tree-lines"), lines).unwrap();
    let script = "GIT_CONFIG_GLOBAL=/dev/null git mktree <.git/tree-lines 2>/dev/null || true";
    let made = shell(script, git.path()).trim().to_owned();
    (!made.is_empty()).then_some(made)
}

#[test]
fn a_pack_that_lacks_an_object_is_refused_also_where_nothing_is_checked_out() {
    let scene = Scene::new();
    let (mut objects, facts) = good(&scene);
    let git = Git(scene.path("app"));
    let blob = git.run(&["rev-parse", "HEAD:README"]).trim().to_owned();
    let script = format!(
        "export GIT_CONFIG_GLOBAL=/dev/null;          {{ printf '# v2 git bundle\\n'; git for-each-ref --format='%(objectname) %(refname)'; echo;          git rev-list --objects --all | cut -d' ' -f1 | grep -v {blob} | git pack-objects -q --stdout; }} >forged.bundle"
    );
    shell(&script, git.path());
    let mut to = RestoreOptions::new(&scene.path("back"));
    to.bare = Some(true);
    forge(&scene, &objects, &facts);
    scene.try_restore(&to).unwrap();
    fs::remove_dir_all(scene.path("back")).unwrap();
    objects.insert("repository.bundle".to_owned(), fs::read(git.path().join("forged.bundle")).unwrap());
    forge(&scene, &objects, &facts);
    let refused = scene.try_restore(&to).unwrap_err();
    assert!(refused.contains(&blob), "{refused}");
    assert!(!scene.path("back").exists());
}

#[test]
fn a_file_behind_a_pointer_is_not_given_out_with_another_content() {
    let scene = Scene::new();
    let git = scene.git("app");
    let id = git.lfs(b"large content");
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{id}\nsize 13\n");
    git.commit("data.bin", pointer);
    let mut options = scene.plain(git.path());
    options.codec = Codec::None;
    let facts = scene.back_up(&options).receipt.manifest.facts;
    let folder = scene.sets().remove(0);
    let read = |name: &str| (name.to_owned(), fs::read(folder.join(name)).unwrap());
    let mut objects = BTreeMap::from(["repository.bundle", "state.json", "lfs.tar"].map(read));
    assert!(scene.restore_file("data.bin", "HEAD", "good").is_ok());
    assert_eq!(fs::read(scene.path("good")).unwrap(), b"large content");
    let name = format!("lfs/objects/{}/{}/{id}", &id[..2], &id[2..4]);
    objects.insert("lfs.tar".to_owned(), tar(&[(name.as_str(), EntryKind::File(512))]));
    forge(&scene, &objects, &facts);
    let refused = scene.restore_file("data.bin", "HEAD", "bad").unwrap_err();
    assert!(refused.contains("has another content"), "{refused}");
    assert!(!scene.path("bad").exists());
}
