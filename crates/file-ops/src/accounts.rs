//! Names of users and groups, from the files of the system: no service is asked.

use std::collections::HashMap;
use std::path::Path;

use crate::attributes::Attributes;

/// Names and numbers of the users and groups of a system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    users: Names,
    groups: Names,
}

#[derive(Clone, Debug, Default)]
struct Names {
    by_number: HashMap<u32, Vec<u8>>,
    by_name: HashMap<Vec<u8>, u32>,
}

impl Accounts {
    /// Those of the system below `root`. Files that cannot be read give no names.
    pub(crate) fn of(root: &Path) -> Self {
        let read = |file: &str| std::fs::read(root.join("etc").join(file)).unwrap_or_default();
        Self { users: Names::parse(&read("passwd")), groups: Names::parse(&read("group")) }
    }

    /// Adds the names to the numbers.
    pub(crate) fn name(&self, attributes: &mut Attributes) {
        let name = |names: &Names, number| names.by_number.get(&number).cloned().unwrap_or_default();
        attributes.user_name = name(&self.users, attributes.user);
        attributes.group_name = name(&self.groups, attributes.group);
    }

    /// Replaces the numbers by those that the names have on this system. Names unknown here leave them.
    pub(crate) fn number(&self, attributes: &mut Attributes) {
        attributes.user = *self.users.by_name.get(&attributes.user_name).unwrap_or(&attributes.user);
        attributes.group = *self.groups.by_name.get(&attributes.group_name).unwrap_or(&attributes.group);
    }
}

impl Names {
    /// `name:x:number:…`, one a line. The first entry of a name or number counts, as it does for the system.
    fn parse(content: &[u8]) -> Self {
        let mut names = Self::default();
        for line in content.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b':');
            let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else { continue };
            let Some(number) = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()) else {
                continue;
            };
            if !name.is_empty() {
                names.by_number.entry(number).or_insert_with(|| name.to_vec());
                names.by_name.entry(name.to_vec()).or_insert(number);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_names_of_the_other_system() {
        let here = Accounts {
            users: Names::parse(b"root:x:0:0::/:\nweb:x:33:33::/:\n#\n\nbad:x:y:\n"),
            groups: Names::parse(b"web:x:40:\n"),
        };
        let there = Accounts { users: Names::parse(b"web:x:1033:1:"), groups: Names::default() };
        let mut attributes = Attributes { user: 33, group: 40, ..Attributes::default() };
        here.name(&mut attributes);
        assert_eq!(
            (attributes.user_name.as_slice(), attributes.group_name.as_slice()),
            (&b"web"[..], &b"web"[..])
        );
        there.number(&mut attributes);
        assert_eq!((attributes.user, attributes.group), (1033, 40));
    }
}
