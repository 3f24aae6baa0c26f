//! What comes back is what was there: by ourselves, and with stock tools alone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use backstay_file_ops::code::RestoreOptions;

use crate::support::{Git, Scene, is_root, shell};

/// Branches, tags, notes, a stash, refs of a remote, refs that stand for files, odd names, a submodule, LFS objects.
fn rich(scene: &Scene) -> Git {
    let library = scene.git("library");
    let git = scene.git("app");
    git.commit("src/main.rs", "fn main() {}\n".repeat(300));
    git.run(&["tag", "-a", "v1.0", "-m", "one"]);
    git.run(&["tag", "light"]);
    git.run(&["notes", "add", "-m", "a note"]);
    git.run(&["submodule", "add", "-q", library.path().to_str().unwrap(), "vendor/library"]);
    git.run(&["commit", "-q", "-m", "submodule"]);
    git.run(&["branch", "feature/ä", "HEAD~1"]);
    git.run(&["update-ref", "refs/remotes/origin/main", "HEAD~1"]);
    git.run(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"]);
    let blob = git.run(&["hash-object", "-w", "README"]);
    git.run(&["update-ref", "refs/odd/blob", blob.trim()]);
    // Git would look for it in three places.
    git.run(&["update-ref", "refs/heads/refs/heads/main", "HEAD~1"]);
    git.write("README", "stashed\n");
    git.run(&["stash", "-q"]);
    let id = git.lfs(b"large content");
    git.lfs(b"another");
    git.commit(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    git.commit("data.bin", format!("version https://git-lfs.github.com/spec/v1\noid sha256:{id}\nsize 13\n"));
    git
}

fn make_dirty(git: &Git) {
    git.write("README", "staged\n");
    git.write("new staged.txt", "x\n");
    git.run(&["add", "."]);
    git.write("README", "staged, then changed\r\n");
    git.write("src/main.rs", [0_u8, 1, 2, 255, 0, 10]);
    fs::remove_file(git.path().join(".gitattributes")).unwrap();
    git.write("untracked/deep/ü.txt", "u\n");
    git.write(".gitignore", "*.log\n");
    git.write("ignored.log", "i\n");
    std::os::unix::fs::symlink("/etc/passwd", git.path().join("link")).unwrap();
    let script = git.path().join("untracked/run.sh");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    shell(&format!("chmod 755 '{}'", script.display()), git.path());
    if is_root() {
        std::os::unix::fs::chown(&script, Some(1234), Some(1234)).unwrap();
    }
}

#[test]
fn refs_head_tags_notes_submodules_lfs_and_dirty_state_come_back_exactly() {
    let scene = Scene::new();
    let git = rich(&scene);
    make_dirty(&git);
    let before = (git.refs(), git.work());
    let mut options = scene.options(git.path());
    options.uncommitted = true;
    let report = scene.back_up(&options);
    assert!(report.receipt.manifest.complete, "{:?}", report.problems);
    assert_eq!((report.state.submodules.len(), report.state.lfs.len()), (1, 2));
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    // Nothing in the repository was touched.
    assert_eq!((git.refs(), git.work()), before);

    let mut to = RestoreOptions::new(&scene.path("back"));
    to.uncommitted = true;
    let restored = scene.try_restore(&to).unwrap();
    let back = Git(scene.path("back"));
    assert_eq!(back.refs(), git.refs());
    let (mut expected, found) = (git.work(), back.work());
    expected.1.remove(std::path::Path::new("ignored.log"));
    // The submodule's own files come from its own repository.
    expected.1.retain(|path, _| !path.starts_with("vendor/library"));
    assert_eq!(found, expected);
    for args in
        [["diff", "--cached", "--binary"], ["diff", "--binary", "--full-index"], ["ls-files", "-s", "-v"]]
    {
        assert_eq!(back.run(&args), git.run(&args), "{args:?}");
    }
    assert_eq!(back.run(&["describe", "--tags"]), git.run(&["describe", "--tags"]));
    for object in &restored.state.lfs {
        let id = object.id.as_str();
        let path = format!(".git/lfs/objects/{}/{}/{id}", &id[..2], &id[2..4]);
        assert_eq!(fs::read(back.path().join(&path)).unwrap(), fs::read(git.path().join(&path)).unwrap());
    }
    back.run(&["fsck", "--full", "--strict"]);
    assert!(!scene.path(".back.backstay-restore").exists());
    if is_root() {
        // Files belong to whoever restores, wherever they come from.
        let owner = |git: &Git| fs::metadata(git.path().join("untracked/run.sh")).unwrap().uid();
        assert_eq!((owner(&git), owner(&back)), (1234, 0));
    }
}

#[test]
fn a_manifest_has_no_names() {
    let scene = Scene::new();
    let git = rich(&scene);
    make_dirty(&git);
    let mut options = scene.options(git.path());
    options.uncommitted = true;
    scene.back_up(&options);
    let manifest = fs::read_to_string(scene.sets()[0].join("manifest.json")).unwrap();
    for name in ["feature", "README", "main.rs", "vendor", "untracked/"] {
        assert!(!manifest.contains(name), "{name}: {manifest}");
    }
}

#[test]
fn stock_tools_alone_open_a_chain() {
    let scene = Scene::new();
    let git = rich(&scene);
    scene.back_up(&scene.options(git.path()));
    git.commit("later", "later\n");
    git.run(&["branch", "-D", "feature/ä"]);
    git.lfs(b"a third one");
    make_dirty(&git);
    let mut options = scene.options(git.path());
    options.uncommitted = true;
    let report = scene.back_up(&options);
    assert_eq!(report.facts.builds_on, 1);
    fs::write(scene.path("key.txt"), scene.key_text()).unwrap();
    let sets = scene.sets();
    let (full, new) = (sets[0].display(), sets[1].display());
    let script = format!(
        "export GIT_CONFIG_GLOBAL=/dev/null
         for set in {full} {new}; do
           age -d -i key.txt $set/repository.bundle.age >$(basename $set).bundle
         done
         git clone -q --mirror $(basename {full}).bundle stock/.git
         git -C stock config core.bare false
         git -C stock bundle unbundle $PWD/$(basename {new}).bundle >/dev/null
         age -d -i key.txt {new}/state.json.zst.age | zstd -qd >state.json
         jq -r '.refs[] | select(.target == null) | \"\\(.id) \\(.name)\"' state.json | LC_ALL=C sort -k2 >wanted
         git -C stock for-each-ref --format='delete %(refname)' | git -C stock update-ref --no-deref --stdin
         jq -r '.refs[] | select(.target == null) | \"create \\(.name) \\(.id)\"' state.json | git -C stock update-ref --stdin
         jq -r '.refs[] | select(.target) | \"\\(.name) \\(.target)\"' state.json | xargs -n 2 git -C stock symbolic-ref
         git -C stock symbolic-ref HEAD \"$(jq -r .head.branch state.json)\"
         git -C stock reset -q --hard
         for set in {full} {new}; do age -d -i key.txt $set/lfs.tar.zst.age | zstd -qd | tar -xf - -C stock/.git; done
         age -d -i key.txt {new}/staged.patch.zst.age | zstd -qd | git -C stock apply --index --whitespace=nowarn
         age -d -i key.txt {new}/unstaged.patch.zst.age | zstd -qd | git -C stock apply --whitespace=nowarn
         age -d -i key.txt {new}/untracked.tar.zst.age | zstd -qd | tar -xf - -C stock
         git -C stock fsck --full --strict"
    );
    shell(&script, &scene.path(""));
    let stock = Git(scene.path("stock"));
    assert_eq!(stock.refs(), git.refs());
    assert_eq!(stock.work().0, git.work().0);
    assert_eq!(stock.run(&["diff", "--binary"]), git.run(&["diff", "--binary"]));
    let ours = scene.restore("ours");
    assert_eq!(ours.refs(), git.refs());
    let objects =
        |git: &Git| shell("find .git/lfs/objects -type f | LC_ALL=C sort | xargs sha256sum", git.path());
    assert_eq!((objects(&stock), objects(&ours)), (objects(&git), objects(&git)));
}

#[test]
fn one_file_of_one_commit_also_behind_a_pointer() {
    let scene = Scene::new();
    let git = rich(&scene);
    let old = git.run(&["rev-parse", "HEAD"]).trim().to_owned();
    git.commit("src/main.rs", "fn main() { todo!() }\n");
    scene.back_up(&scene.options(git.path()));
    let get = |path: &str, revision: &str, to: &str| scene.restore_file(path, revision, to);
    assert_eq!(get("src/main.rs", &old, "old.rs").unwrap(), old);
    assert_eq!(fs::read_to_string(scene.path("old.rs")).unwrap(), "fn main() {}\n".repeat(300));
    get("src/main.rs", "HEAD", "new.rs").unwrap();
    assert_eq!(fs::read_to_string(scene.path("new.rs")).unwrap(), "fn main() { todo!() }\n");
    get("data.bin", "main", "data.bin").unwrap();
    assert_eq!(fs::read(scene.path("data.bin")).unwrap(), b"large content");
    for (path, revision) in
        [("nothing", "HEAD"), ("src", "HEAD"), ("README", "nowhere"), ("README", "--help"), ("*", "HEAD")]
    {
        let refused = get(path, revision, "none").unwrap_err();
        assert!(refused.contains(" has no "), "{refused}");
        assert!(!scene.path("none").exists());
    }
    let taken = get("README", "HEAD", "old.rs").unwrap_err();
    assert!(taken.contains(" is in the way"), "{taken}");
}

#[test]
fn a_restore_never_touches_what_is_there() {
    let scene = Scene::new();
    let git = scene.git("app");
    scene.back_up(&scene.options(git.path()));
    fs::create_dir(scene.path("taken")).unwrap();
    fs::write(scene.path("taken/file"), "mine").unwrap();
    let refused = scene.try_restore(&RestoreOptions::new(&scene.path("taken"))).unwrap_err();
    assert!(refused.contains("is in the way: there is something in it"), "{refused}");
    assert_eq!(fs::read_dir(scene.path("taken")).unwrap().count(), 1);
    std::os::unix::fs::symlink(scene.path("elsewhere"), scene.path("dangling")).unwrap();
    scene.try_restore(&RestoreOptions::new(&scene.path("dangling"))).unwrap_err();
    assert!(!scene.path("elsewhere").exists());
    fs::create_dir(scene.path("empty")).unwrap();
    scene.restore("empty");
}
