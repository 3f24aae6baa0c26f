//! What happens between two runs, as commands of their own.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use backstay_backup_core::key::Prefix;
use backstay_benches::open_bucket;
use clap::Subcommand;
use futures::TryStreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::lab::{BUCKET, KEY, SECRET};

const PAGE: u64 = 8192;

#[derive(Debug, clap::Args)]
pub(crate) struct Chore {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Removes everything from the bucket
    EmptyBucket { port: u16 },
    /// Damages one page of a hundred in the three largest files of a data directory, and removes five files
    Damage { data: PathBuf },
}

/// Runs one of them.
pub(crate) async fn run(chore: &Chore) {
    match &chore.what {
        What::EmptyBucket { port } => empty_bucket(*port).await,
        What::Damage { data } => damage(data),
    }
}

async fn empty_bucket(port: u16) {
    let store = open_bucket(port, BUCKET, (KEY, SECRET)).await;
    let everything: Vec<_> = store.list(&Prefix::root()).try_collect().await.expect("the server lists");
    for object in everything {
        store.delete(&object.key).await.expect("the server deletes");
    }
}

fn damage(data: &Path) {
    let mut files = Vec::new();
    walk(&data.join("base"), &mut files);
    files.sort();
    // Same sizes may come in any order, names decide: every tool gets the same damage.
    files.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let mut random = StdRng::seed_from_u64(20_261_123);
    for (size, path) in &files[..3] {
        let file = File::options().write(true).open(path).expect("a relation's file");
        for _ in 0..size / PAGE / 100 {
            let page = random.random_range(0..size / PAGE);
            let noise: [u8; 512] = random.random();
            file.write_all_at(&noise, page * PAGE + 1024).expect("room for noise");
        }
    }
    let some: Vec<&PathBuf> = files[3..].iter().filter(|(size, _)| *size > 0).map(|(_, path)| path).collect();
    for path in some.iter().step_by(some.len() / 5).take(5) {
        fs::remove_file(path).expect("the folder is ours");
    }
}

fn walk(folder: &Path, files: &mut Vec<(u64, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("a folder of the cluster").flatten() {
        let meta = entry.metadata().expect("nobody removes it meanwhile");
        if meta.is_dir() {
            walk(&entry.path(), files);
        } else {
            files.push((meta.len(), entry.path()));
        }
    }
}
