//! From the staging folder into a system, and back.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use backstay_file_ops::restore::{
    Plan, PlanOptions, StageOptions, Staged, What, apply, plan_restore, text_diff, undo,
};
use tokio_util::sync::CancellationToken;

use crate::support::{Scene, assert_same, is_root, snapshot};

fn cancel() -> CancellationToken {
    CancellationToken::new()
}

/// A set of a small system, and that system changed since, as a root of its own.
struct System {
    scene: Scene,
    root: PathBuf,
    staged: Staged,
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn system() -> System {
    let scene = Scene::new();
    let tree = scene.path("etc");
    write(&tree.join("same"), "same\n");
    write(&tree.join("changed"), "one\ntwo\nthree\n");
    write(&tree.join("mode"), "mode\n");
    write(&tree.join("deep/er/gone"), "gone\n");
    symlink("same", tree.join("link")).unwrap();
    fs::write(tree.join("first"), "names\n").unwrap();
    fs::hard_link(tree.join("first"), tree.join("second")).unwrap();
    let report = scene.back_up(&scene.options(std::slice::from_ref(&tree)));

    // The live system is a root of its own: the same paths below another folder.
    let root = scene.path("live");
    let live = root.join(tree.strip_prefix("/").unwrap());
    fs::create_dir_all(live.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("cp").arg("-a").arg(&tree).arg(&live).status().unwrap().success());
    fs::write(live.join("changed"), "one\n2\nthree\n").unwrap();
    fs::set_permissions(live.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir_all(live.join("deep")).unwrap();
    fs::remove_file(live.join("link")).unwrap();
    symlink("elsewhere", live.join("link")).unwrap();
    fs::remove_file(live.join("second")).unwrap();
    fs::write(live.join("second"), "names\n").unwrap();
    write(&live.join("own"), "of this system\n");
    let staged = scene.stage(&report.receipt.manifest, &StageOptions::new(scene.path("staging"))).unwrap();
    System { scene, root, staged }
}

impl System {
    fn live(&self, name: &str) -> PathBuf {
        self.root.join(self.scene.path("etc").strip_prefix("/").unwrap()).join(name)
    }

    fn plan(&self) -> Plan {
        let mut options = PlanOptions::default();
        options.root.clone_from(&self.root);
        plan_restore(&self.staged, &options, &cancel()).unwrap()
    }

    fn apply(&self, plan: &Plan, run: &str) -> backstay_file_ops::restore::Applied {
        apply(plan, &self.staged, run, &cancel()).unwrap()
    }

    /// What a plan says, by name.
    fn told(&self, plan: &Plan) -> Vec<(String, What, Vec<String>)> {
        let etc = self.scene.path("etc");
        let name = |path: &str| Path::new("/").join(path).strip_prefix(&etc).unwrap().display().to_string();
        plan.steps
            .iter()
            .map(|step| (name(&step.path.to_string()), step.what, step.details.clone()))
            .collect()
    }
}

#[test]
fn a_plan_names_every_difference_and_touches_nothing() {
    let system = system();
    let before = snapshot(&system.root);
    let plan = system.plan();
    let first = system.scene.path("etc/first");
    let expected = [
        ("changed", What::Replace, vec!["content: 12 bytes here, 14 in the set".to_owned()]),
        ("link", What::Replace, vec!["points to elsewhere, not to same".to_owned()]),
        ("mode", What::Replace, vec!["mode: 0600 here, 0644 in the set".to_owned()]),
        ("second", What::Replace, vec![format!("is no further name of {}", first.display())]),
        ("deep", What::CreateFolder, vec![]),
        ("deep/er", What::CreateFolder, vec![]),
        ("deep/er/gone", What::Create, vec![]),
    ];
    let expected: Vec<_> = expected.map(|(name, what, details)| (name.to_owned(), what, details)).into();
    assert_eq!(system.told(&plan), expected);
    assert_eq!((plan.same, plan.conflicts.len()), (3, 0));
    assert_same(&before, &snapshot(&system.root));
    let diff = text_diff(&plan.steps[0], &system.staged, &system.root).unwrap();
    assert!(diff.ends_with("@@ -1,3 +1,3 @@\n one\n-2\n+two\n three\n"), "{diff}");
}

#[test]
fn applied_files_are_those_of_the_set_and_undo_brings_the_old_ones_back() {
    let system = system();
    let before = snapshot(&system.root);
    let plan = system.plan();
    let applied = system.apply(&plan, "run");
    assert_eq!((applied.done, applied.left.len(), applied.lacking.len()), (7, 0, 0));
    assert!(system.plan().steps.is_empty(), "{:?}", system.told(&system.plan()));
    assert_eq!(fs::read_to_string(system.live("own")).unwrap(), "of this system\n");
    let inode = |name: &str| fs::metadata(system.live(name)).unwrap().ino();
    assert_eq!(inode("first"), inode("second"));

    // What is kept opens with stock tar.
    let folder = applied.undo.unwrap();
    let listed = std::process::Command::new("tar").arg("-tf").arg(folder.join("old.tar")).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 4);

    let undone = undo(&folder, false, &cancel()).unwrap();
    assert_eq!((undone.restored, undone.removed, undone.left.len()), (4, 3, 0), "{undone:?}");
    let mut after = snapshot(&system.root);
    // Of folders the time of the last change is no setting.
    let timeless = |tree: &mut std::collections::BTreeMap<Vec<u8>, crate::support::Snapshot>| {
        tree.values_mut().filter(|one| one.kind == 0o040_000).for_each(|one| one.modified = (0, 0));
    };
    let mut expected = before;
    timeless(&mut expected);
    timeless(&mut after);
    assert_same(&expected, &after);
    let again = undo(&folder, false, &cancel()).unwrap();
    assert_eq!((again.restored, again.removed, again.already), (0, 0, 7));
}

#[test]
fn what_changed_after_the_plan_is_left_alone() {
    let system = system();
    let plan = system.plan();
    fs::write(system.live("changed"), "by somebody else\n").unwrap();
    fs::create_dir_all(system.live("deep/er")).unwrap();
    fs::write(system.live("deep/er/gone"), "new\n").unwrap();
    // The same length and the same time: only the system's own time tells.
    let before = fs::metadata(system.live("mode")).unwrap().modified().unwrap();
    fs::write(system.live("mode"), "MODE\n").unwrap();
    File::options().write(true).open(system.live("mode")).unwrap().set_modified(before).unwrap();
    let applied = system.apply(&plan, "run");
    let left: Vec<_> =
        applied.left.iter().map(|(path, _)| Path::new(path).file_name().unwrap().to_owned()).collect();
    assert_eq!(left, ["changed", "mode", "gone"]);
    assert_eq!(fs::read_to_string(system.live("mode")).unwrap(), "MODE\n");
    assert_eq!(fs::read_to_string(system.live("changed")).unwrap(), "by somebody else\n");
    assert_eq!(fs::read_to_string(system.live("deep/er/gone")).unwrap(), "new\n");
    let names = fs::read_dir(system.live("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".backstay")));
}

#[test]
fn undo_leaves_alone_what_somebody_changed_since_unless_forced() {
    let system = system();
    let folder = system.apply(&system.plan(), "run").undo.unwrap();
    fs::write(system.live("changed"), "edited since\n").unwrap();
    fs::write(system.live("deep/er/more"), "put here since\n").unwrap();
    fs::write(system.live("deep/er/gone"), "made by us, edited since\n").unwrap();
    let undone = undo(&folder, false, &cancel()).unwrap();
    assert_eq!(undone.left.len(), 4, "{undone:?}");
    assert_eq!(fs::read_to_string(system.live("deep/er/gone")).unwrap(), "made by us, edited since\n");
    assert_eq!(fs::read_to_string(system.live("changed")).unwrap(), "edited since\n");
    assert_eq!(fs::read_to_string(system.live("deep/er/more")).unwrap(), "put here since\n");
    undo(&folder, true, &cancel()).unwrap();
    assert_eq!(fs::read_to_string(system.live("changed")).unwrap(), "one\n2\nthree\n");
    assert!(!system.live("deep/er/gone").exists() && system.live("deep/er/more").exists());
}

#[test]
fn what_is_of_another_kind_here_is_in_the_way() {
    let system = system();
    fs::remove_file(system.live("changed")).unwrap();
    fs::create_dir(system.live("changed")).unwrap();
    symlink("/tmp", system.live("deep")).unwrap();
    let plan = system.plan();
    let reasons: Vec<_> = plan.conflicts.iter().map(|(_, reason)| reason.as_str()).collect();
    let link = "a folder on the way to it is a link or a file here";
    assert_eq!(reasons, ["it is a folder here", "it is no folder here", link, link]);
    system.apply(&plan, "run");
    assert!(system.live("changed").is_dir() && system.live("deep").is_symlink());
}

#[test]
fn a_folder_of_somebody_else_is_not_staged_into() {
    let system = system();
    let manifest = system.scene.newest().unwrap();
    let other = system.scene.path("other");
    write(&other.join("file"), "kept");
    let refused = system.scene.stage(&manifest, &StageOptions::new(other.clone()));
    assert!(refused.unwrap_err().to_string().contains("other things in it"));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    // One of ours may be used again.
    fs::write(system.staged.files.join("stray"), "").unwrap();
    let staged = system.scene.stage(&manifest, &StageOptions::new(system.staged.folder.clone())).unwrap();
    assert!(!staged.files.join("stray").exists());
    assert_eq!(fs::metadata(&staged.folder).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn one_file_comes_back_alone() {
    let system = system();
    let manifest = system.scene.newest().unwrap();
    let mut options = StageOptions::new(system.staged.folder.clone());
    let wanted = system.scene.path("etc/deep/er/gone");
    options.unpack.only = vec![backstay_file_ops::ArchivePath::of_absolute(&wanted).unwrap()];
    let staged = system.scene.stage(&manifest, &options).unwrap();
    assert_eq!(staged.entries.len(), 1);
    let system = System { staged, ..system };
    system.apply(&system.plan(), "run");
    assert_eq!(fs::read_to_string(system.live("deep/er/gone")).unwrap(), "gone\n");
    assert_eq!(fs::read_to_string(system.live("changed")).unwrap(), "one\n2\nthree\n");
}

#[test]
fn differences_that_neither_size_nor_mode_shows_are_named() {
    let system = system();
    // Only here is another account called as the owner of the files.
    write(&system.root.join("etc/passwd"), "daemon:x:4242:4242::/:/bin/sh\n");
    let time = fs::metadata(system.live("same")).unwrap().modified().unwrap();
    fs::write(system.live("same"), "SAME\n").unwrap();
    File::options().write(true).open(system.live("same")).unwrap().set_modified(time).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(system.live("first"), "user.here", b"1", flags).unwrap();
    let plan = system.plan();
    let details = |plan: &Plan, wanted: &str| {
        let told = system.told(plan).into_iter().find(|(name, _, _)| name == wanted);
        told.map(|(_, _, details)| details).unwrap_or_default()
    };
    assert_eq!(details(&plan, "same"), ["content"]);
    assert_eq!(details(&plan, "first"), ["user.here"]);
    system.apply(&plan, "run");
    assert_eq!(fs::read_to_string(system.live("same")).unwrap(), "same\n");
    assert_eq!(rustix::fs::llistxattr(system.live("first"), &mut [0; 64]).unwrap(), 0);

    if is_root() {
        // Numbers of accounts that the set knows by name: `daemon` is 1 in every distribution of ours.
        let tree = system.scene.path("etc");
        std::os::unix::fs::chown(tree.join("mode"), Some(1), None).unwrap();
        let mut options = system.scene.options(std::slice::from_ref(&tree));
        options.force = true;
        let manifest = system.scene.back_up(&options).receipt.manifest;
        let staged = system.scene.stage(&manifest, &StageOptions::new(system.staged.folder.clone())).unwrap();
        let system = System { staged, ..system };
        let plan = system.plan();
        let told = system.told(&plan).into_iter().find(|(name, _, _)| name == "mode").unwrap();
        assert_eq!(told.2, ["owner: 0:0 here, 4242:0 in the set"]);
        system.apply(&plan, "named");
        assert_eq!(fs::metadata(system.live("mode")).unwrap().uid(), 4242);
        let mut options = PlanOptions::default();
        options.root.clone_from(&system.root);
        options.numeric_owners = true;
        let plan = plan_restore(&system.staged, &options, &cancel()).unwrap();
        assert_eq!(system.told(&plan)[0].2, ["owner: 4242:0 here, 1:0 in the set"]);
    }
}

/// An archive has the attributes of a file at its first name only.
#[test]
fn a_further_name_has_the_attributes_of_its_file() {
    let scene = Scene::new();
    let tree = scene.path("etc");
    write(&tree.join("first"), "names\n");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.join("first"), "user.names", b"two", flags).unwrap();
    fs::hard_link(tree.join("first"), tree.join("second")).unwrap();
    let report = scene.back_up(&scene.options(std::slice::from_ref(&tree)));
    let staged = scene.stage(&report.receipt.manifest, &StageOptions::new(scene.path("staging"))).unwrap();
    let system = System { root: PathBuf::from("/"), staged, scene };
    let plan = system.plan();
    assert!(plan.steps.is_empty(), "{:?}", system.told(&plan));
}

#[test]
fn the_next_installation_removes_what_a_killed_one_left_beside_files() {
    let system = system();
    let plan = system.plan();
    let undo = system.apply(&plan, "first").undo.unwrap();
    // As if it had been killed before it renamed the file of its first step.
    fs::remove_file(undo.join("done")).unwrap();
    let stray = system.live(".backstay-first-0");
    fs::write(&stray, "half").unwrap();
    let own = system.live(".backstay-other-0");
    fs::write(&own, "nobody knows whose").unwrap();
    system.apply(&system.plan(), "second");
    assert!(!stray.exists() && own.exists());
}
