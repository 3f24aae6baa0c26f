use super::super::work::Need;
use super::*;
use crate::physical::{BlockDigest, ClusterPath, IndexFile};

const MIB: usize = 1 << 20;

/// Files of these sizes, each behind a header, and the plain bytes that they lie in.
fn pack(sizes: &[usize]) -> (Vec<FileWork>, Vec<u8>) {
    let (mut files, mut plain) = (Vec::new(), Vec::new());
    for (number, size) in sizes.iter().enumerate() {
        plain.extend([0xAA; 512]);
        let content: Vec<u8> = (0..*size).map(|at| (at / 97 + number) as u8).collect();
        let file = IndexFile {
            path: ClusterPath::parse(format!("base/5/{number}").as_bytes()).unwrap(),
            pack: 1,
            at: plain.len() as u64,
            size: *size as u64,
            mode: 0o600,
            modified: 0,
            blocks: content.chunks(MIB).map(BlockDigest::of).collect(),
        };
        plain.extend(content);
        files.push(FileWork { file, need: Need::All });
    }
    plain.extend([0; 1024]);
    (files, plain)
}

/// Every block that is handed over is the one that is needed next.
fn check(files: &[FileWork], plain: &[u8]) -> usize {
    let (unpacking, mut blocks) = queue();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| unpacking.run(plain, files));
        let mut count = 0;
        for block in files.iter().flat_map(FileWork::blocks).filter(|block| block.needed) {
            let content = blocks.next(block.length).unwrap();
            assert_eq!(BlockDigest::of(content), block.digest);
            count += 1;
        }
        drop(blocks);
        reader.join().unwrap().unwrap();
        count
    })
}

#[test]
fn blocks_of_all_sizes_come_in_order() {
    let sizes = [1, MIB, 0, MIB + 1, 5 * MIB + 77, 8192, 8192, MIB - 8192, 3];
    let (files, plain) = pack(&sizes);
    assert_eq!(check(&files, &plain), 14);
    let many = vec![700; 9000];
    let (files, plain) = pack(&many);
    assert_eq!(check(&files, &plain), 9000);
}

#[test]
fn what_nobody_needs_is_passed_over() {
    let (mut files, plain) = pack(&[3 * MIB, 10, 4 * MIB]);
    files[0].need = Need::Blocks(vec![1]);
    files[1].need = Need::Blocks(Vec::new());
    files[2].need = Need::Blocks(vec![0, 3]);
    assert_eq!(check(&files, &plain), 3);
}

#[test]
fn a_pack_that_breaks_off_ends_both() {
    let (files, plain) = pack(&[3 * MIB, 3 * MIB]);
    let (unpacking, mut blocks) = queue();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| unpacking.run(&plain[..4 * MIB], &files));
        let mut got = 0;
        while blocks.next(MIB).is_some() {
            got += 1;
        }
        assert!(got <= 3, "{got}");
        assert_eq!(reader.join().unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn unpacking_ends_when_nobody_writes() {
    let (files, plain) = pack(&[9 * MIB]);
    let (unpacking, mut blocks) = queue();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| unpacking.run(&plain[..], &files));
        assert!(blocks.next(MIB).is_some());
        drop(blocks);
        reader.join().unwrap().unwrap();
    });
}
