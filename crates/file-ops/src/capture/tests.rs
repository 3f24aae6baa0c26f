use std::fs;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::SetKind;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::pipeline::FrameBuffers;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::set_writer::{DataPath, SetSpec, SetWriter};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};

use super::*;
use crate::frames;
use crate::selection::{Selection, SelectionOptions};
use crate::walk::{Tree, walk};

/// Larger than all that waits between the reader and whoever stores it.
const LARGE: usize = 64 << 20;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn buffers() -> FrameBuffers {
    runtime().block_on(async {
        let repository =
            Repository::create("memory", Arc::new(MemoryStore::new(Arc::new(SystemClock))), &SystemClock)
                .await
                .unwrap();
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
        let spec = SetSpec::new(SetKind::new("config"), Stanza::parse("main").unwrap(), "test");
        SetWriter::begin(&repositories, spec, DataPath::default()).await.unwrap().frame_buffers()
    })
}

/// A sink, and what comes out of it.
pub(crate) fn channel() -> (FrameSink, impl Stream<Item = io::Result<Bytes>> + Send) {
    frames::channel(buffers())
}

/// Everything that comes out; no more than waits there.
pub(crate) fn taken(stream: impl Stream<Item = io::Result<Bytes>>) -> Vec<u8> {
    let frames: Vec<_> = runtime().block_on(stream.collect());
    frames.into_iter().flat_map(|frame| frame.unwrap().to_vec()).collect()
}

fn walked(folder: &Path) -> Tree {
    let mut options = SelectionOptions::default();
    options.paths.push(folder.canonicalize().unwrap());
    walk(&Selection::resolve(&options).unwrap(), &CancellationToken::new()).unwrap()
}

/// Captures what a walk found; something happens after the first frame was taken, when the reader waits for the others to be.
fn captured(tree: &Tree, scanner: Option<&Scanner>, meanwhile: impl FnOnce()) -> (Captured, Vec<u8>) {
    let (mut sink, stream) = channel();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let (progress, cancel) = (Progress::new(), CancellationToken::new());
            let captured = capture(Path::new("/"), &tree.found, scanner, &mut sink, &progress, &cancel);
            let Ok(captured) = captured else { panic!("it stopped") };
            sink.finish().unwrap();
            captured
        });
        let archive = runtime().block_on(async {
            let mut stream = std::pin::pin!(stream);
            let mut archive = stream.next().await.unwrap().unwrap().to_vec();
            meanwhile();
            while let Some(frame) = stream.next().await {
                archive.extend_from_slice(&frame.unwrap());
            }
            archive
        });
        (reading.join().unwrap(), archive)
    })
}

fn kinds(captured: &Captured) -> Vec<ProblemKind> {
    captured.problems.iter().map(|problem| problem.kind).collect()
}

#[test]
fn what_became_a_secret_after_the_look_for_secrets_is_withheld() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small"), folder.path().join("large"));
    fs::write(&small, "listen = 80\n").unwrap();
    fs::write(&large, vec![b'x'; 2 << 20]).unwrap();
    let (tree, scanner) = (walked(folder.path()), Scanner::new(&[]).unwrap());
    let (whole, _) = captured(&tree, Some(&scanner), || ());
    assert_eq!((whole.files, kinds(&whole), whole.moved_on), (2, vec![], false));

    let token = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
    fs::write(&small, format!("token = {token}\n")).unwrap();
    // What is too large to be looked at again is withheld as soon as it is another.
    fs::write(&large, vec![b'y'; 2 << 20]).unwrap();
    let (held, archive) = captured(&tree, Some(&scanner), || ());
    assert_eq!((held.files, kinds(&held)), (0, vec![ProblemKind::Withheld; 2]));
    assert!(held.moved_on && !archive.windows(4).any(|four| four == b"ghp_" || four == b"yyyy"));

    // What changed and is no secret is stored, and so is everything that will be encrypted.
    fs::write(&small, "listen = 8080\n").unwrap();
    let (stored, archive) = captured(&tree, Some(&scanner), || ());
    assert_eq!((stored.files, stored.moved_on), (1, true));
    assert!(archive.windows(13).any(|part| part == b"listen = 8080"));
    assert_eq!(captured(&tree, None, || ()).0.files, 2);
}

#[test]
fn a_large_file_that_shrinks_grows_or_changes_while_it_is_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let open = || File::options().write(true).append(false).open(&path).unwrap();
    let changes: [(ProblemKind, &dyn Fn()); 3] = [
        (ProblemKind::Changed, &|| open().set_len(1 << 20).unwrap()),
        (ProblemKind::Grew, &|| open().set_len(LARGE as u64 + 100).unwrap()),
        (ProblemKind::Changed, &|| std::os::unix::fs::FileExt::write_all_at(&open(), b"other", 0).unwrap()),
    ];
    for (kind, change) in changes {
        fs::write(&path, vec![b'x'; LARGE]).unwrap();
        let tree = walked(folder.path());
        let (captured, archive) = captured(&tree, None, change);
        assert_eq!((kinds(&captured), captured.moved_on), (vec![kind], true));
        assert!(archive.len() > LARGE, "the length that the header promised");
    }
}

#[test]
fn what_is_not_as_the_walk_saw_it_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("folder");
    let changes: [&dyn Fn(); 4] = [
        &|| fs::write(inside.join("file"), "another\n").unwrap(),
        &|| fs::remove_file(inside.join("file")).unwrap(),
        &|| {
            fs::remove_file(inside.join("link")).unwrap();
            std::os::unix::fs::symlink("elsewhere", inside.join("link")).unwrap();
        },
        &|| fs::write(inside.join("new"), "").unwrap(),
    ];
    for change in changes {
        let _ = fs::remove_dir_all(&inside);
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("file"), "one\n").unwrap();
        std::os::unix::fs::symlink("there", inside.join("link")).unwrap();
        let tree = walked(&inside);
        assert!(!captured(&tree, None, || ()).0.moved_on);
        // Older systems give all changes within a tick of their clock the same time.
        std::thread::sleep(TICK);
        change();
        assert!(captured(&tree, None, || ()).0.moved_on);
    }
}

#[test]
fn a_further_name_that_became_another_file_is_stored_with_what_is_in_it() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    fs::write(&first, "of both\n").unwrap();
    fs::hard_link(&first, &second).unwrap();
    // So that the first name is one of several later, too.
    fs::hard_link(&first, elsewhere.path().join("third")).unwrap();
    let tree = walked(folder.path());
    let (both, _) = captured(&tree, None, || ());
    assert_eq!((both.files, both.links, both.moved_on), (1, 1, false));
    fs::remove_file(&second).unwrap();
    fs::write(&second, "of one\n").unwrap();
    let (each, archive) = captured(&tree, None, || ());
    assert_eq!((each.files, each.links, each.moved_on), (2, 0, true));
    assert!(archive.windows(7).any(|part| part == b"of one\n"));
}

#[test]
fn a_small_file_that_changes_all_the_time_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small");
    fs::write(&path, "listen = 80\n").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for mode in [0o600, 0o640] {
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                }
            }
        });
        // Whoever changes it may not get a processor for a while.
        let (tree, begin) = (walked(folder.path()), std::time::Instant::now());
        let is_told = std::iter::repeat_with(|| kinds(&captured(&tree, None, || ()).0))
            .take_while(|_| begin.elapsed().as_secs() < 60)
            .any(|kinds| kinds == [ProblemKind::Changed]);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(is_told);
    });
}
