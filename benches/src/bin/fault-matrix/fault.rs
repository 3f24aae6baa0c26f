//! What goes wrong with the archive, and what recovery is asked for.

/// The place of the repository a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Disk,
    S3,
    /// On disk, encrypted.
    Encrypted,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Disk, Self::S3, Self::Encrypted];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::S3 => "s3",
            Self::Encrypted => "encrypted",
        }
    }
}

/// A way in which the archive cannot be read any more, from one segment of the log on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    Forbidden,
    WrongPrefix,
    InternalError,
    Unavailable,
    Timeout,
    NoSuchHost,
    Expired,
    NoKey,
}

/// What is done to the archive.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Injury {
    Nothing,
    /// The stored bytes of one segment are others.
    Stored(fn(Vec<u8>) -> Vec<u8>),
    /// One segment is not there.
    Removed,
    /// One segment has another content, stored the way the tool itself would have stored it.
    Content(fn(Vec<u8>) -> Vec<u8>),
    /// Nothing can be read from one segment on.
    Broken(Defect),
}

/// One row of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) injury: Injury,
}

/// All rows; the clean ones first.
pub(crate) const FAULTS: [Fault; 17] = [
    fault("none, local disk", Place::Disk, Injury::Nothing),
    fault("none, S3", Place::S3, Injury::Nothing),
    fault("none, encrypted", Place::Encrypted, Injury::Nothing),
    fault("segment truncated", Place::Disk, Injury::Stored(half)),
    fault("bit flipped", Place::Disk, Injury::Stored(flip)),
    fault("missing in the middle", Place::Disk, Injury::Removed),
    fault("right-sized garbage", Place::Disk, Injury::Content(garbage)),
    fault("wrong system id", Place::Disk, Injury::Content(other_system)),
    fault("wrong timeline", Place::Disk, Injury::Content(other_timeline)),
    fault("403", Place::S3, Injury::Broken(Defect::Forbidden)),
    fault("404 on a wrong prefix", Place::S3, Injury::Broken(Defect::WrongPrefix)),
    fault("500", Place::S3, Injury::Broken(Defect::InternalError)),
    fault("503", Place::S3, Injury::Broken(Defect::Unavailable)),
    fault("timeout", Place::S3, Injury::Broken(Defect::Timeout)),
    fault("DNS failure", Place::S3, Injury::Broken(Defect::NoSuchHost)),
    fault("expired credentials", Place::S3, Injury::Broken(Defect::Expired)),
    fault("missing key", Place::Encrypted, Injury::Broken(Defect::NoKey)),
];

const fn fault(name: &'static str, place: Place, injury: Injury) -> Fault {
    Fault { name, place, injury }
}

fn half(mut stored: Vec<u8>) -> Vec<u8> {
    stored.truncate(stored.len() / 2);
    stored
}

fn flip(mut stored: Vec<u8>) -> Vec<u8> {
    let middle = stored.len() / 2;
    stored[middle] ^= 1;
    stored
}

/// Noise of the same size; seeded, so that two runs see the same.
fn garbage(mut content: Vec<u8>) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for byte in &mut content {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[3];
    }
    content
}

/// The system identifier stands in the first page's long header, at byte 24.
fn other_system(mut content: Vec<u8>) -> Vec<u8> {
    content[24] ^= 0xFF;
    content
}

/// Every page's header names its timeline at byte 4.
fn other_timeline(mut content: Vec<u8>) -> Vec<u8> {
    for page in content.chunks_mut(8192) {
        if page[4..8] == 1_u32.to_le_bytes() {
            page[4..8].copy_from_slice(&2_u32.to_le_bytes());
        }
    }
    content
}

/// What recovery is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Time,
    Lsn,
    Xid,
    Name,
    Latest,
}

impl Target {
    pub(crate) const ALL: [Self; 5] = [Self::Time, Self::Lsn, Self::Xid, Self::Name, Self::Latest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Lsn => "LSN",
            Self::Xid => "xid",
            Self::Name => "name",
            Self::Latest => "latest",
        }
    }
}
