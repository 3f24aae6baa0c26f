//! ACLs between the form of the kernel and the text that tar archives carry.
//!
//! The kernel hands an ACL out as an extended attribute of numbers; `tar --acls` reads and writes text. Users and groups are
//! numbers in both here.

/// The extended attribute of an ACL, and the tar record it travels in.
pub(crate) const ACLS: [(&[u8], &str); 2] =
    [(b"system.posix_acl_access", "SCHILY.acl.access"), (b"system.posix_acl_default", "SCHILY.acl.default")];

const VERSION: u32 = 2;
/// Tag of an entry, its word, and whether it names somebody.
const TAGS: [(u16, &str, bool); 6] = [
    (0x01, "user", false),
    (0x02, "user", true),
    (0x04, "group", false),
    (0x08, "group", true),
    (0x10, "mask", false),
    (0x20, "other", false),
];
/// What the kernel writes where nobody is named.
const NOBODY: u32 = u32::MAX;

/// The text of an ACL, `None` for one of a form that this version does not know.
pub(crate) fn to_text(binary: &[u8]) -> Option<String> {
    let (version, entries) = binary.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let texts: Option<Vec<_>> = entries.as_chunks::<8>().0.iter().map(entry_text).collect();
    Some(texts?.join(","))
}

fn entry_text(entry: &[u8; 8]) -> Option<String> {
    let [a, b, c, d, id @ ..] = *entry;
    let (tag, permissions, id) =
        (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), u32::from_le_bytes(id));
    let (_, word, named) = TAGS.iter().find(|(number, ..)| *number == tag)?;
    let letter = |bit, letter| if permissions & bit != 0 { letter } else { '-' };
    let who = if *named { id.to_string() } else { String::new() };
    (permissions <= 7).then(|| format!("{word}:{who}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')))
}

/// The form of the kernel. `None` for anything but entries with numbers.
pub(crate) fn to_binary(text: &str) -> Option<Vec<u8>> {
    let mut binary = VERSION.to_le_bytes().to_vec();
    for entry in text.split([',', '\n']).filter(|entry| !entry.is_empty()) {
        let mut fields = entry.split(':');
        let (word, who, letters) = (fields.next()?, fields.next()?, fields.next()?);
        let (tag, _, named) =
            TAGS.iter().find(|(_, name, named)| *name == word && *named != who.is_empty())?;
        let id = if *named { who.parse().ok()? } else { NOBODY };
        let [read, write, execute] = *letters.as_bytes() else { return None };
        let bit = |byte, letter, value: u16| match byte {
            b'-' => Some(0),
            byte if byte == letter => Some(value),
            _ => None,
        };
        let permissions = bit(read, b'r', 4)? | bit(write, b'w', 2)? | bit(execute, b'x', 1)?;
        binary.extend_from_slice(&tag.to_le_bytes());
        binary.extend_from_slice(&permissions.to_le_bytes());
        binary.extend_from_slice(&id.to_le_bytes());
    }
    Some(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_goes_through_text_and_back() {
        let text = "user::rw-,user:1000:r--,group::r-x,group:33:---,mask::rwx,other::--x";
        let binary = to_binary(text).unwrap();
        assert_eq!(binary.len(), 4 + 6 * 8);
        assert_eq!(to_text(&binary).as_deref(), Some(text));
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        for text in ["user", "user::rwz", "user:name:rwx", "who::rwx", "mask:3:rwx", "user::rw"] {
            assert_eq!(to_binary(text), None, "{text}");
        }
        for binary in [b"".as_slice(), &[1, 0, 0, 0], &[2, 0, 0, 0, 1], &[2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0]]
        {
            assert_eq!(to_text(binary), None);
        }
    }
}
