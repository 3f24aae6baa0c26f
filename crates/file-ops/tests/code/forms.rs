//! Every form of repository is captured exactly, or refused in plain words.

use std::fs;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified as _;
use backstay_file_ops::code::RestoreOptions;
use backstay_file_ops::config_set::ProblemKind;

use crate::support::{Git, Scene, shell};

#[test]
fn one_without_a_commit_and_one_that_is_detached() {
    let scene = Scene::new();
    let empty = Git::init(scene.path("empty"), &[]);
    empty.run(&["symbolic-ref", "HEAD", "refs/heads/unborn"]);
    empty.write("staged", "s");
    empty.run(&["add", "staged"]);
    empty.write("untracked", "u");
    let mut options = scene.options(empty.path());
    options.uncommitted = true;
    let report = scene.back_up(&options);
    assert!(!report.facts.bundle && report.receipt.manifest.complete);
    let mut to = RestoreOptions::new(&scene.path("empty-back"));
    to.uncommitted = true;
    scene.try_restore(&to).unwrap();
    let back = Git(scene.path("empty-back"));
    assert_eq!((back.refs(), back.work()), (empty.refs(), empty.work()));

    let git = scene.git("app");
    git.commit("second", "2");
    git.run(&["checkout", "-q", "--detach"]);
    git.commit("on no branch", "3");
    scene.back_up(&scene.options(git.path()));
    let back = scene.restore("back");
    assert_eq!(back.refs(), git.refs());
    assert!(back.path().join("on no branch").exists());
}

#[test]
fn bare_ones_sha256_and_borrowed_objects() {
    let scene = Scene::new();
    let git = scene.git("app");
    git.run(&["tag", "-a", "v1", "-m", "x"]);
    git.run(&["clone", "-q", "--mirror", ".", scene.path("bare.git").to_str().unwrap()]);
    let bare = Git(scene.path("bare.git"));
    let report = scene.back_up(&scene.options(bare.path()));
    assert!(report.state.bare && report.state.dirty.is_none());
    let back = scene.restore("bare-back");
    assert_eq!(back.refs(), bare.refs());
    assert_eq!(back.run(&["rev-parse", "--is-bare-repository"]), "true\n");

    let modern = Git::init(scene.path("modern"), &["--object-format=sha256"]);
    modern.commit("a", "a");
    assert_eq!(scene.back_up(&scene.options(modern.path())).facts.builds_on, 0, "another form");
    modern.commit("b", "b");
    assert_eq!(scene.back_up(&scene.options(modern.path())).facts.builds_on, 1);
    let back = scene.restore("modern-back");
    assert_eq!(back.refs(), modern.refs());
    assert_eq!(back.run(&["rev-parse", "--show-object-format"]), "sha256\n");

    git.run(&["clone", "-q", "--shared", ".", scene.path("shared").to_str().unwrap()]);
    let shared = Git(scene.path("shared"));
    shared.commit("c", "c");
    scene.back_up(&scene.options(shared.path()));
    let back = scene.restore("shared-back");
    assert_eq!(back.refs(), shared.refs());
    fs::remove_dir_all(git.path()).unwrap();
    back.run(&["fsck", "--full"]);
}

#[test]
fn working_trees_beside_the_first_and_submodules_themselves() {
    let scene = Scene::new();
    let git = scene.git("app");
    let tree = scene.path("tree");
    git.run(&["worktree", "add", "-q", "--detach", tree.to_str().unwrap()]);
    let tree = Git(tree);
    tree.commit("only here", "x");
    let only_here = tree.run(&["rev-parse", "HEAD"]);
    // The first one holds what the others stand on.
    let report = scene.back_up(&scene.options(git.path()));
    assert_eq!(report.state.worktrees.len(), 1);
    let back = scene.restore("back");
    assert_eq!(back.run(&["rev-parse", "refs/backstay/worktrees/tree"]), only_here);
    // And each can be named itself.
    let mut options = scene.options(tree.path());
    options.name = "tree".to_owned();
    let report = scene.back_up(&options);
    assert_eq!(report.state.head.commit.unwrap().as_str(), only_here.trim());

    let outer = scene.git("outer");
    outer.run(&["submodule", "add", "-q", git.path().to_str().unwrap(), "inner"]);
    let mut options = scene.options(&outer.path().join("inner"));
    options.name = "inner".to_owned();
    let report = scene.back_up(&options);
    assert_eq!(report.state.head.commit.unwrap().as_str(), git.run(&["rev-parse", "HEAD"]).trim());
}

#[test]
fn what_cannot_be_captured_exactly_is_refused_in_plain_words() {
    let scene = Scene::new();
    let git = scene.git("app");
    git.commit("second", "2");
    git.run(&["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", git.path().display());
    let place = |name: &str| scene.path(name).display().to_string();
    git.run(&["clone", "-q", "--depth=1", &url, &place("shallow")]);
    git.run(&["clone", "-q", "--filter=blob:none", "--no-checkout", &url, &place("partial")]);
    // What a partial clone lacks is lacking, whatever its configuration says by now.
    shell("cp -a partial forgotten", &scene.path(""));
    let forgotten = Git(scene.path("forgotten"));
    for key in ["extensions.partialclone", "remote.origin.promisor", "remote.origin.partialclonefilter"] {
        let _ = forgotten.command(&["config", "--unset", key]).output().unwrap();
    }
    fs::create_dir(scene.path("nothing")).unwrap();
    fs::create_dir(git.path().join("below")).unwrap();
    fs::create_dir(scene.path("lost")).unwrap();
    fs::write(scene.path("lost/.git"), "gitdir: ../gone\n").unwrap();
    Git::init(scene.path("odd"), &[]);
    shell("git config --file odd/.git/config extensions.objectformat sha999", &scene.path(""));
    for (name, words) in [
        ("shallow", "it is a shallow clone"),
        ("partial", "it is a partial clone"),
        ("forgotten", "it is a partial clone"),
        ("nothing", "it is no git repository"),
        ("app/below", "it is no git repository"),
        ("lost", "points to no folder"),
        ("odd", "its object format is unknown"),
    ] {
        let error = scene.try_back_up(&scene.options(&scene.path(name))).unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert_eq!(error.class(), Class::Usage);
        assert!(error.hint().is_some());
    }
    let mut options = scene.options(git.path());
    options.uncommitted = true;
    git.run(&["checkout", "-q", "-b", "one"]);
    git.commit("README", "one");
    git.run(&["checkout", "-q", "-b", "two", "main"]);
    git.commit("README", "two");
    assert!(!git.command(&["merge", "-q", "one"]).output().unwrap().status.success());
    let error = scene.try_back_up(&options).unwrap_err();
    assert!(error.to_string().contains("in conflict"), "{error}");
    assert!(scene.sets().is_empty());
    options.uncommitted = false;
    assert_eq!(scene.back_up(&options).state.dirty.unwrap().unmerged, 1);
}

#[test]
fn a_tag_of_ours_does_not_capture_git_describe() {
    let scene = Scene::new();
    let git = scene.git("app");
    git.run(&["tag", "-a", "v1.0", "-m", "release"]);
    git.commit("later", "x");
    let described = git.run(&["describe", "--tags"]);
    let mut options = scene.options(git.path());
    options.mark = true;
    let report = scene.back_up(&options);
    let name = report.mark.unwrap().unwrap();
    assert_eq!(name, format!("refs/backstay/sets/{}", report.receipt.manifest.set));
    assert_eq!(git.run(&["cat-file", "-t", &name]), "tag\n");
    assert_eq!(git.run(&["rev-parse", &format!("{name}^{{commit}}")]), git.run(&["rev-parse", "HEAD"]));
    assert_eq!(git.run(&["describe", "--tags"]), described);
    git.run(&["fsck", "--strict"]);
    // It is no change of the repository.
    let again = scene.try_back_up(&options).unwrap();
    assert!(matches!(again, backstay_file_ops::code::Outcome::Unchanged { .. }), "{again:?}");
}

#[test]
fn settings_that_change_files_do_not_make_a_tree_look_dirty() {
    let scene = Scene::new();
    let git = Git::init(scene.path("app"), &[]);
    git.run(&["config", "core.autocrlf", "true"]);
    git.commit("dos.txt", "one\r\ntwo\r\n");
    git.commit("other.txt", "three\r\n");
    // Times that tell nothing, so that the content is compared.
    shell("touch dos.txt other.txt", git.path());
    git.write("dos.txt", "one\r\ntwo and a half\r\n");
    let mut options = scene.options(git.path());
    options.uncommitted = true;
    let report = scene.back_up(&options);
    assert_eq!(report.state.dirty.unwrap().unstaged, 1);
    let mut to = RestoreOptions::new(&scene.path("back"));
    to.uncommitted = true;
    scene.try_restore(&to).unwrap();
    assert_eq!(Git(scene.path("back")).work(), git.work());
}

#[test]
fn history_is_taken_as_it_is_and_not_as_replacements_show_it() {
    let scene = Scene::new();
    let git = scene.git("app");
    git.commit("second", "2");
    git.commit("third", "3");
    // To git it looks as if there were one commit.
    git.run(&["replace", "--graft", "HEAD"]);
    assert_eq!(git.run(&["rev-list", "--count", "HEAD"]), "1\n");
    scene.back_up(&scene.options(git.path()));
    let back = scene.restore("back");
    assert_eq!(back.refs(), git.refs());
    assert_eq!(back.run(&["--no-replace-objects", "rev-list", "--count", "HEAD"]), "3\n");
}

#[test]
fn a_repository_within_the_tree_is_named_and_the_set_is_whole() {
    let scene = Scene::new();
    let git = scene.git("app");
    let inner = Git::init(git.path().join("inner"), &[]);
    inner.commit("README", "of its own\n");
    git.write("new", "of the outer one\n");
    let mut options = scene.options(git.path());
    options.uncommitted = true;
    let report = scene.back_up(&options);
    assert!(report.receipt.manifest.complete, "{:?}", report.problems);
    let told: Vec<_> = report.problems.iter().map(|problem| (problem.kind, &*problem.path)).collect();
    assert_eq!(told, [(ProblemKind::Special, "inner")]);
}

#[test]
fn large_objects_that_are_kept_elsewhere_are_told_and_the_set_is_incomplete() {
    let scene = Scene::new();
    let git = scene.git("app");
    git.lfs(b"large content");
    git.run(&["config", "lfs.storage", "/srv/lfs"]);
    let report = scene.back_up(&scene.options(git.path()));
    assert!(!report.receipt.manifest.complete);
    let told: Vec<_> = report.problems.iter().map(|problem| (problem.kind, &*problem.path)).collect();
    assert_eq!(told, [(ProblemKind::Unreadable, "lfs/objects")]);
}
