use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use backstay_file_ops::config_set::Outcome;
use backstay_file_ops::restore::StageOptions;

use crate::support::{Scene, assert_same, is_root, shell, snapshot};

const ACL: &[(u16, u16, u32)] =
    &[(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (8, 5, 33), (16, 6, u32::MAX), (32, 0, u32::MAX)];

fn set_acl(path: &Path, name: &str) {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in ACL {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    rustix::fs::setxattr(path, name, &value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// A tree with everything that a file can have. Further plain files make it as large as wanted.
fn make_tree(tree: &Path, files: usize) {
    fs::create_dir_all(tree.join("plain/empty")).unwrap();
    for number in 0..files {
        let folder = tree.join(format!("plain/{:03}", number / 500));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{number}")), format!("{number}\n").repeat(number % 50)).unwrap();
    }
    fs::write(tree.join("plain/multi"), vec![7; 3 << 20]).unwrap();
    let set_id = tree.join("plain/set-id");
    fs::write(&set_id, "x").unwrap();
    if is_root() {
        std::os::unix::fs::chown(&set_id, Some(1234), Some(4_000_000_000)).unwrap();
        std::os::unix::fs::lchown(tree.join("plain/empty"), Some(33), Some(12)).unwrap();
    }
    fs::set_permissions(&set_id, fs::Permissions::from_mode(0o6751)).unwrap();
    fs::set_permissions(tree.join("plain/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    // Links.
    fs::hard_link(&set_id, tree.join("plain/another name")).unwrap();
    fs::hard_link(tree.join("plain/multi"), tree.join("zzz")).unwrap();
    symlink("plain/multi", tree.join("link")).unwrap();
    symlink("/nowhere/at/all", tree.join("dangling")).unwrap();
    symlink("x/".repeat(120), tree.join("long link")).unwrap();
    symlink(OsStr::from_bytes(&[b"\xff/".as_slice(), &[b'y'; 150]].concat()), tree.join("odd link")).unwrap();
    // Names.
    fs::write(tree.join(OsStr::from_bytes(b"odd \xff\xfe\n")), "odd").unwrap();
    fs::write(tree.join(OsStr::from_bytes(&[&[0xe4; 120][..], b"x"].concat())), "odd and long").unwrap();
    let deep = tree.join(format!("{}/{}/{}", "d".repeat(250), "e".repeat(250), "ü".repeat(100)));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(255)), "deep").unwrap();
    fs::write(tree.join("a=b %3D"), "").unwrap();
    // Holes.
    let mut sparse = File::create(tree.join("sparse")).unwrap();
    sparse.write_all(&[1; 5000]).unwrap();
    sparse.seek(SeekFrom::Start(3 << 20)).unwrap();
    sparse.write_all(&[2; 100_000]).unwrap();
    sparse.set_len(50 << 20).unwrap();
    File::create(tree.join("only a hole")).unwrap().set_len(9 << 20).unwrap();
    // Attributes and times.
    let attributed = tree.join("attributed");
    fs::write(&attributed, "x").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&attributed, "user.a=b%", b"\0binary\nvalue=\xff", flags).unwrap();
    rustix::fs::setxattr(&attributed, "user.empty", b"", flags).unwrap();
    set_acl(&attributed, "system.posix_acl_access");
    set_acl(&tree.join("plain"), "system.posix_acl_default");
    if is_root() {
        rustix::fs::setxattr(&attributed, "trusted.backstay", b"t", flags).unwrap();
    }
    let old = std::time::UNIX_EPOCH - std::time::Duration::new(3, 250_000_000);
    File::options().write(true).open(&attributed).unwrap().set_modified(old).unwrap();
}

fn there_and_back(files: usize) {
    let scene = Scene::new();
    let tree = scene.path("tree");
    make_tree(&tree, files);
    let before = snapshot(&tree);
    let report = scene.back_up(&scene.options(std::slice::from_ref(&tree)));
    assert!(report.receipt.manifest.complete, "{:?}", report.problems);

    // With stock tools alone.
    fs::write(scene.path("key.txt"), scene.key_text()).unwrap();
    fs::create_dir(scene.path("stock")).unwrap();
    let object = scene.set_folder().join("files.tar.zst.age");
    let script = format!(
        "age -d -i key.txt '{}' | zstd -d | tar --acls --xattrs --xattrs-include='*' -xpf - -C stock",
        object.display()
    );
    shell(&script, &scene.path(""));
    let below = tree.strip_prefix("/").unwrap();
    assert_same(&before, &snapshot(&scene.path("stock").join(below)));
    fs::remove_dir_all(scene.path("stock")).unwrap();

    // By ourselves, into a folder whose ACL everything in it would inherit.
    fs::create_dir(scene.path("staging")).unwrap();
    set_acl(&scene.path("staging"), "system.posix_acl_default");
    let staged = scene.stage(&report.receipt.manifest, &StageOptions::new(scene.path("staging"))).unwrap();
    assert_eq!(staged.lacking, []);
    assert_same(&before, &snapshot(&staged.files.join(below)));
}

#[test]
fn everything_a_file_can_have_comes_back() {
    there_and_back(1_000);
}

#[test]
fn a_hundred_thousand_files_come_back() {
    if std::env::var_os("BACKSTAY_SOAK").is_some() {
        there_and_back(100_000);
    }
}

#[test]
fn the_same_tree_gives_the_same_archive() {
    let scene = Scene::new();
    make_tree(&scene.path("tree"), 200);
    let mut options = scene.plain(&[scene.path("tree")]);
    options.force = true;
    let digest =
        |report: backstay_file_ops::config_set::ConfigReport| report.receipt.manifest.objects[0].sha256;
    assert_eq!(digest(scene.back_up(&options)), digest(scene.back_up(&options)));
}

#[test]
fn an_unchanged_tree_stores_nothing_and_every_change_is_noticed() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    make_tree(&tree, 50);
    let options = scene.options(std::slice::from_ref(&tree));
    let sets = || fs::read_dir(scene.path("repository/main/sets")).unwrap().count();
    // A tree that was changed a moment ago is stored again, to be sure.
    let settled = || {
        while let Outcome::Stored(_) = scene.try_back_up(&options).unwrap() {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    settled();
    let before = sets();
    assert!(matches!(scene.try_back_up(&options).unwrap(), Outcome::Unchanged { .. }));
    assert_eq!(sets(), before);

    // A set says more than what is in the files.
    let mut renamed = options.clone();
    renamed.host = "another".to_owned();
    let mut rotated = options.clone();
    let version = r#"{ "id": "prod/app", "version": "second", "file": "/etc/app/password" }"#;
    rotated.secrets = vec![serde_json::from_str(version).unwrap()];
    for other in [renamed, rotated] {
        scene.back_up(&other);
        settled();
    }

    // What is listed and missing is told, though everything that is there is as before.
    let incomplete = scene.back_up(&scene.options(&[tree.clone(), scene.path("gone")])).receipt.manifest;
    assert!(!incomplete.complete);

    let file = tree.join("plain/000/file-7");
    let changes: [&dyn Fn(); 6] = [
        // The same length and the same time: only the system's own time tells.
        &|| {
            let time = fs::metadata(&file).unwrap().modified().unwrap();
            let length = fs::metadata(&file).unwrap().len() as usize;
            fs::write(&file, vec![b'x'; length]).unwrap();
            File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        },
        &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap(),
        &|| rustix::fs::setxattr(&file, "user.new", b"1", rustix::fs::XattrFlags::empty()).unwrap(),
        &|| fs::remove_file(tree.join("link")).unwrap(),
        &|| fs::rename(tree.join("zzz"), tree.join("zz")).unwrap(),
        &|| fs::create_dir(tree.join("plain/another")).unwrap(),
    ];
    for change in changes {
        change();
        scene.back_up(&options);
        settled();
    }
    // What did not change is stored again when the newest set is too old.
    let mut aged = options.clone();
    aged.refresh_after = Some(std::time::Duration::from_secs(3600));
    assert!(matches!(scene.try_back_up(&aged).unwrap(), Outcome::Unchanged { .. }));
    aged.refresh_after = Some(std::time::Duration::ZERO);
    scene.back_up(&aged);
    // Another key must be able to read it, too.
    let other = age::x25519::Identity::generate().to_public().to_string();
    let mut for_another = options.clone();
    for_another.recipients = backstay_backup_core::encryption::Recipients::parse([other.as_str()]).unwrap();
    scene.back_up(&for_another);
}
