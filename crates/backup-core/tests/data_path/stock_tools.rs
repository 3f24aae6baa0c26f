use std::io::Write;
use std::process::{Command, Stdio};

use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::repository::layout;
use futures::TryStreamExt;

use crate::support::{content, identity, memory, repositories, stanza, write_set};

async fn stored(recipients: Recipients, codec: Codec, plain: &[u8]) -> Vec<u8> {
    let repositories = repositories(&[memory()], 1).await;
    let manifest = write_set(&repositories, recipients, codec, &[("x", plain)]).await.unwrap().manifest;
    let key = layout::object(&stanza(), &manifest.set, "x").unwrap();
    let store = repositories.members()[0].store();
    let chunks: Vec<_> = store.get(&key, None).await.unwrap().body.try_collect().await.unwrap();
    chunks.concat()
}

/// What a command makes of its input; `None` where it is not installed.
fn through(command: &mut Command, input: &[u8]) -> Option<Vec<u8>> {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    Some(output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_tools_open_what_was_compressed() {
    for len in [0, 1, 999, 1000, 50_000] {
        let plain = content(len, 9);
        for (codec, tool) in [(Codec::Zstd, "zstd"), (Codec::Gzip, "gzip")] {
            let stored = stored(Recipients::none(), codec, &plain).await;
            if let Some(opened) = through(Command::new(tool).arg("-dc"), &stored) {
                assert!(opened == plain, "{tool}, {len} bytes");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn age_and_zstd_open_what_was_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let identities = [identity(), identity()];
    let publics: Vec<_> = identities.iter().flat_map(|(_, parsed)| parsed.recipients().texts()).collect();
    let recipients = Recipients::parse(publics.iter().map(String::as_str)).unwrap();
    for len in [0, 1, 70_000, 500_000] {
        let plain = content(len, 9);
        let stored = stored(recipients.clone(), Codec::Zstd, &plain).await;
        for (private, _) in &identities {
            let file = folder.path().join("key.txt");
            std::fs::write(&file, private).unwrap();
            let Some(compressed) = through(Command::new("age").arg("-d").arg("-i").arg(&file), &stored)
            else {
                continue;
            };
            if let Some(opened) = through(Command::new("zstd").arg("-dc"), &compressed) {
                assert!(opened == plain, "{len} bytes");
            }
        }
    }
}
