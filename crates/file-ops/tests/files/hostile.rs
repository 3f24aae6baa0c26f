//! Archives that were made to do harm. Each is refused, and nothing is written outside of the folder.

use std::fs;
use std::path::Path;

use backstay_file_ops::Error;
use backstay_file_ops::unpack::{UnpackOptions, list, unpack};
use tokio_util::sync::CancellationToken;

use crate::support::snapshot;

const RECORD: usize = 512;

/// An entry as its bytes, with every field free.
struct Raw {
    name: Vec<u8>,
    flag: u8,
    link: Vec<u8>,
    content: Vec<u8>,
    size: Option<Vec<u8>>,
    mode: Vec<u8>,
    pax: Vec<u8>,
}

fn raw(name: &[u8], flag: u8) -> Raw {
    let (name, mode) = (name.to_vec(), b"0000644\0".to_vec());
    Raw { name, flag, link: Vec::new(), content: Vec::new(), size: None, mode, pax: Vec::new() }
}

impl Raw {
    fn link(mut self, link: &[u8]) -> Self {
        self.link = link.to_vec();
        self
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.content = content.to_vec();
        self
    }

    fn size(mut self, field: &[u8]) -> Self {
        self.size = Some(field.to_vec());
        self
    }

    fn mode(mut self, field: &[u8]) -> Self {
        self.mode = field.to_vec();
        self
    }

    fn record(mut self, key: &[u8], value: &[u8]) -> Self {
        let rest = key.len() + value.len() + 3;
        let length =
            (1..=9).map(|digits| rest + digits).find(|all| all.to_string().len() + rest == *all).unwrap();
        self.pax.extend(format!("{length} ").into_bytes());
        self.pax.extend([key, b"=", value, b"\n"].concat());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.pax.is_empty() {
            bytes.extend(header(b"./PaxHeaders/x", b'x', b"", &octal(self.pax.len()), b"0000000\0"));
            bytes.extend(padded(&self.pax));
        }
        let size = self.size.clone().unwrap_or_else(|| octal(self.content.len()));
        bytes.extend(header(&self.name, self.flag, &self.link, &size, &self.mode));
        bytes.extend(padded(&self.content));
        bytes
    }
}

fn octal(number: usize) -> Vec<u8> {
    format!("{number:011o}\0").into_bytes()
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().div_ceil(RECORD) * RECORD, 0);
    content
}

fn header(name: &[u8], flag: u8, link: &[u8], size: &[u8], mode: &[u8]) -> [u8; RECORD] {
    let mut header = [0; RECORD];
    header[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    header[100..108].copy_from_slice(mode);
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(size);
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = flag;
    header[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    header
}

fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..RECORD].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn archive(entries: &[Raw]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Raw::bytes).collect();
    bytes.extend([0; 2 * RECORD]);
    bytes
}

fn file(name: &[u8]) -> Raw {
    raw(name, b'0').content(b"owned")
}

fn sparse(map: &str, size: &str) -> Raw {
    raw(b"GNUSparseFile.0/s", b'0')
        .record(b"GNU.sparse.major", b"1")
        .record(b"GNU.sparse.minor", b"0")
        .record(b"GNU.sparse.name", b"s")
        .record(b"GNU.sparse.realsize", size.as_bytes())
        .content(&[padded(map.as_bytes()), b"12345".to_vec()].concat())
}

/// What each means to do, the archive, and words of the refusal.
fn hostile(outside: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let target = outside.as_bytes();
    let below = |name: &str| [target, b"/", name.as_bytes()].concat();
    let good = || archive(&[file(b"good")]);
    let mut cases = vec![
        ("absolute path", archive(&[file(&below("evil"))]), "absolute"),
        ("absolute path of a folder", archive(&[raw(&below("evil/"), b'5')]), "absolute"),
        ("absolute long path", archive(&[file(b"x").record(b"path", &below("evil"))]), "absolute"),
        ("parent", archive(&[file(b"../evil")]), "upwards"),
        ("parent in the middle", archive(&[file(b"a/../../evil")]), "upwards"),
        ("parent at the end", archive(&[raw(b"a/..", b'5')]), "upwards"),
        ("parent in a long path", archive(&[file(b"x").record(b"path", b"a/../../evil")]), "upwards"),
        ("many parents", archive(&[file(&[b"../".repeat(20), b"etc/evil".to_vec()].concat())]), "upwards"),
        ("dot", archive(&[file(b"./evil")]), "dot"),
        ("double slash", archive(&[file(b"a//evil")]), "empty name"),
        ("a file with a slash at its end", archive(&[file(b"evil/")]), "empty name"),
        ("no name", archive(&[file(b"")]), "empty"),
        ("a zero in a long path", archive(&[file(b"x").record(b"path", b"good\0/../../evil")]), "zero"),
        ("name too long", archive(&[file(b"x").record(b"path", &[b'n'; 300])]), "too long"),
        (
            "path too long",
            archive(&[file(b"x").record(b"path", &[b"d/".repeat(3000), b"e".to_vec()].concat())]),
            "too long",
        ),
        ("through a link", archive(&[raw(b"l", b'2').link(target), file(b"l/evil")]), "below a link"),
        (
            "through two links",
            archive(&[raw(b"a", b'2').link(target), raw(b"b", b'2').link(b"a"), file(b"b/evil")]),
            "below a link",
        ),
        (
            "through a link to a parent",
            archive(&[raw(b"l", b'2').link(b".."), file(b"l/evil")]),
            "below a link",
        ),
        (
            "a link in place of a folder",
            archive(&[file(b"d/x"), raw(b"d", b'2').link(target), file(b"d/evil")]),
            "twice",
        ),
        ("a link in place of a file", archive(&[file(b"f"), raw(b"f", b'2').link(target)]), "twice"),
        (
            "a file through a link of its name",
            archive(&[raw(b"f", b'2').link(&below("evil")), file(b"f")]),
            "twice",
        ),
        (
            "a folder through a link",
            archive(&[raw(b"l", b'2').link(target), raw(b"l/evil/", b'5')]),
            "below a link",
        ),
        (
            "a folder in place of a link",
            archive(&[raw(b"l", b'2').link(target), raw(b"l/", b'5'), file(b"l/evil")]),
            "twice",
        ),
        ("hard link out", archive(&[raw(b"h", b'1').link(&below("secret"))]), "out of the archive"),
        ("hard link upwards", archive(&[raw(b"h", b'1').link(b"../outside/secret")]), "out of the archive"),
        (
            "long hard link out",
            archive(&[raw(b"h", b'1').record(b"linkpath", &below("secret"))]),
            "out of the archive",
        ),
        ("hard link to nothing", archive(&[raw(b"h", b'1').link(b"nothing")]), "no file of the archive"),
        (
            "hard link to a link",
            archive(&[raw(b"l", b'2').link(&below("secret")), raw(b"h", b'1').link(b"l")]),
            "no file of the archive",
        ),
        (
            "hard link through a link",
            archive(&[raw(b"l", b'2').link(target), raw(b"h", b'1').link(b"l/secret")]),
            "no file of the archive",
        ),
        (
            "hard link to a folder",
            archive(&[raw(b"d/", b'5'), raw(b"h", b'1').link(b"d")]),
            "no file of the archive",
        ),
        (
            "hard link with content",
            archive(&[file(b"f"), raw(b"h", b'1').link(b"f").content(b"owned")]),
            "has content",
        ),
        ("something below a file", archive(&[file(b"f"), file(b"f/evil")]), "below a file"),
        ("link to nothing", archive(&[raw(b"l", b'2')]), "impossible"),
        ("link with a zero", archive(&[raw(b"l", b'2').record(b"linkpath", b"a\0b")]), "impossible"),
        ("character device", archive(&[raw(b"null", b'3')]), "device"),
        ("block device", archive(&[raw(b"sda", b'4')]), "device"),
        ("named pipe", archive(&[raw(b"pipe", b'6')]), "named pipe"),
        ("contiguous file", archive(&[raw(b"c", b'7')]), "of a kind"),
        ("old regular file", archive(&[raw(b"c", 0)]), "of a kind"),
        (
            "GNU long name",
            archive(&[raw(b"././@LongLink", b'L').content(b"../evil\0"), file(b"x")]),
            "of a kind",
        ),
        ("GNU old sparse", archive(&[raw(b"s", b'S')]), "of a kind"),
        (
            "global header",
            archive(&[raw(b"g", b'g').content(b"16 path=../evil\n"), file(b"x")]),
            "entries after it",
        ),
        (
            "two extended headers",
            archive(&[raw(b"x", b'x').record(b"mtime", b"1").content(b"11 mtime=1\n")]),
            "two extended headers",
        ),
        ("a path twice", archive(&[file(b"x").record(b"path", b"a").record(b"path", b"../evil")]), "twice"),
        ("unknown record", archive(&[file(b"x").record(b"RHT.security.selinux", b"1")]), "unknown"),
        (
            "record beyond the header",
            archive(&[Raw { pax: b"99 path=a\n".to_vec(), ..file(b"x") }]),
            "broken",
        ),
        ("record of no length", archive(&[Raw { pax: b"0 path=a\n".to_vec(), ..file(b"x") }]), "broken"),
        ("record without an end", archive(&[Raw { pax: b"10 path=abc".to_vec(), ..file(b"x") }]), "broken"),
        (
            "negative size",
            archive(&[file(b"x").size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")]),
            "size",
        ),
        ("size of eight exbibytes", archive(&[file(b"x").record(b"size", b"9223372036854775808")]), "size"),
        ("size that is none", archive(&[file(b"x").size(b"0000000009z\0")]), "size"),
        ("huge size", archive(&[file(b"x").record(b"size", b"9000000000000000000")]), "more room"),
        ("folder with content", archive(&[raw(b"d/", b'5').content(b"x")]), "has content"),
        ("mode beyond permissions", archive(&[file(b"x").mode(b"0777777\0")]), "permissions"),
        ("owner -1", archive(&[file(b"x").record(b"uid", b"4294967295")]), "owner"),
        ("time that is none", archive(&[file(b"x").record(b"mtime", b"1.x")]), "time"),
        ("ACL that is none", archive(&[file(b"x").record(b"SCHILY.acl.access", b"user:root:rwx")]), "ACL"),
        ("attribute without a name", archive(&[file(b"x").record(b"SCHILY.xattr.", b"1")]), "attribute"),
        ("holes over one another", archive(&[sparse("2\n0\n4\n2\n1\n", "10")]), "order"),
        ("holes beyond the end", archive(&[sparse("1\n8\n5\n", "10")]), "beyond"),
        ("holes that overflow", archive(&[sparse("1\n18446744073709551615\n5\n", "10")]), "overflows"),
        ("holes of another length", archive(&[sparse("1\n0\n4\n", "10")]), "fit"),
        ("a map of a billion holes", archive(&[sparse("1000000000\n", "10")]), "map"),
        ("a sparse bomb", archive(&[sparse("1\n0\n5\n", "9000000000000000000")]), "more room"),
        (
            "half a sparse description",
            archive(&[file(b"x").record(b"GNU.sparse.major", b"1")]),
            "another form",
        ),
        (
            "a sparse path upwards",
            archive(&[raw(b"x", b'0')
                .record(b"GNU.sparse.major", b"1")
                .record(b"GNU.sparse.minor", b"0")
                .record(b"GNU.sparse.name", b"../evil")
                .record(b"GNU.sparse.realsize", b"0")
                .content(&padded(b"0\n"))]),
            "upwards",
        ),
        ("the same file twice", archive(&[file(b"x"), file(b"x")]), "twice"),
        ("case collision", archive(&[file(b"Makefile"), file(b"makefile")]), "upper and lower case"),
        ("case collision of folders", archive(&[file(b"Dir/a"), file(b"dir/b")]), "upper and lower case"),
        (
            "case collision of a link",
            archive(&[raw(b"LINK", b'2').link(target), file(b"link/evil")]),
            "upper and lower case",
        ),
        (
            "case collision beyond English",
            archive(&[file("Ärger".as_bytes()), file("ärger".as_bytes())]),
            "upper and lower case",
        ),
        ("no end mark", good()[..1024].to_vec(), "end mark"),
        ("half an end mark", good()[..1536].to_vec(), "end mark"),
        ("more after the end mark", [good(), archive(&[file(b"../evil")])].concat(), "after the end mark"),
        ("cut content", good()[..515].to_vec(), "within its content"),
        ("nothing at all", Vec::new(), "end mark"),
    ];
    let mut checksum = good();
    checksum[0] = b'G';
    cases.push(("wrong checksum", checksum, "checksum"));
    let mut padding = good();
    padding[RECORD + 100] = 1;
    cases.push(("something in the padding", padding, "zeros"));
    let mut magic = good();
    magic[257..265].copy_from_slice(b"ustar  \0");
    seal(&mut magic);
    cases.push(("another form of header", magic, "another form"));
    let mut device = good();
    device[330] = b'7';
    seal(&mut device);
    cases.push(("a device number", device, "broken"));
    cases
}

#[test]
fn hostile_archives_are_refused_and_write_nothing_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let before = snapshot(&outside);
    let mut options = UnpackOptions::default();
    options.max_bytes = 1 << 40;
    let cases = hostile(outside.to_str().unwrap());
    assert!(cases.len() >= 40, "{}", cases.len());
    for (what, bytes, words) in &cases {
        let inside = folder.path().join("inside");
        fs::create_dir(&inside).unwrap();
        match unpack(bytes.as_slice(), &inside, &options, &CancellationToken::new()) {
            Err(error @ Error::Refused { .. }) => {
                assert!(error.to_string().contains(words), "{what}: {error}");
            }
            other => panic!("{what}: {other:?}"),
        }
        let listed = list(bytes.as_slice(), &options, &CancellationToken::new(), |_| ());
        assert!(matches!(listed, Err(Error::Refused { .. })), "{what}: {listed:?}");
        fs::remove_dir_all(&inside).unwrap();
        assert_eq!(snapshot(&outside), before, "{what}");
        let there: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(there, ["outside"], "{what}");
    }
    println!("{} hostile archives refused", cases.len());
}

#[test]
fn what_lies_in_the_folder_already_is_neither_followed_nor_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
    fs::create_dir_all(inside.join("kept")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(inside.join("file"), "kept").unwrap();
    std::os::unix::fs::symlink("../outside/secret", inside.join("link")).unwrap();
    std::os::unix::fs::symlink("../outside/new", inside.join("dangling")).unwrap();
    std::os::unix::fs::symlink("../outside", inside.join("folder")).unwrap();
    std::os::unix::fs::symlink("kept", inside.join("within")).unwrap();
    let before = snapshot(folder.path());
    for entry in [
        file(b"file"),
        file(b"link"),
        file(b"dangling"),
        file(b"folder/secret"),
        file(b"folder/new"),
        file(b"within/new"),
        raw(b"folder/", b'5'),
        raw(b"link", b'2').link(b"elsewhere"),
    ] {
        let bytes = archive(&[entry]);
        let stopped = unpack(bytes.as_slice(), &inside, &UnpackOptions::default(), &CancellationToken::new());
        assert!(matches!(stopped, Err(Error::Io { .. })), "{stopped:?}");
        assert_eq!(snapshot(folder.path()), before);
    }
}

#[test]
fn too_many_entries_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = UnpackOptions::default();
    options.max_entries = 2;
    let bytes = archive(&[file(b"a"), file(b"b"), file(b"c")]);
    let refused = unpack(bytes.as_slice(), folder.path(), &options, &CancellationToken::new());
    assert!(refused.unwrap_err().to_string().contains("more entries"));
}

#[test]
fn the_archive_is_taken_when_nothing_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let entries = [
        raw(b"d/", b'5').mode(b"0000755\0"),
        file(b"d/f"),
        raw(b"d/h", b'1').link(b"d/f"),
        raw(b"l", b'2').link(b"/anywhere"),
        sparse("1\n3\n5\n", "10"),
    ];
    unpack(archive(&entries).as_slice(), folder.path(), &UnpackOptions::default(), &CancellationToken::new())
        .unwrap();
    assert_eq!(fs::read(folder.path().join("d/h")).unwrap(), b"owned");
    assert_eq!(fs::read(folder.path().join("s")).unwrap(), b"\0\0\x0012345\0\0");
    assert_eq!(fs::read_link(folder.path().join("l")).unwrap(), Path::new("/anywhere"));
}
