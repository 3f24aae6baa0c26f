//! From where a server can go on sending a stream.

use serde::Serialize;

use super::facts::Info;
use crate::position::{Offset, ReplicationId};

/// What a server keeps of its stream for replicas that come back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Backlog {
    /// The stream that it writes or follows now.
    pub id: Option<ReplicationId>,
    /// The one that it followed before it was promoted, and where that ended.
    pub former: Option<(ReplicationId, Offset)>,
    /// Who has less than this lacks something that it does not keep any more; `None` when it keeps nothing.
    pub from: Option<Offset>,
    /// Where what it keeps ends.
    pub to: Offset,
}

impl Backlog {
    /// Out of `INFO replication`.
    pub(super) fn of(info: &Info) -> Self {
        let number = |name: &str| info.number(name).and_then(|number| u64::try_from(number).ok());
        let id = |name: &str| info.get(name).and_then(|id| ReplicationId::parse(id).ok());
        let is_kept = info.is_on("repl_backlog_active");
        // Servers count from 1 here.
        let first = number("repl_backlog_first_byte_offset").filter(|first| is_kept && *first > 0);
        let from = first.map(|first| Offset(first - 1));
        let length = number("repl_backlog_histlen").unwrap_or_default();
        let former = id("master_replid2").zip(number("second_repl_offset").filter(|end| *end > 0));
        Self {
            id: id("master_replid"),
            former: former.map(|(id, end)| (id, Offset(end - 1))),
            from,
            to: from.unwrap_or_default().plus(length),
        }
    }

    /// Whether somebody who has that stream up to there need not begin anew.
    #[must_use]
    pub fn goes_on_from(&self, id: ReplicationId, offset: Offset) -> bool {
        let is_former = |(former, end): (ReplicationId, Offset)| former == id && offset <= end;
        let is_known = self.id == Some(id) || self.former.is_some_and(is_former);
        is_known && offset <= self.to && self.from.is_some_and(|from| from <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "0123456789abcdef0123456789abcdef01234567";
    const OLD: &str = "89abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_server_goes_on_from_what_it_keeps_and_no_other_place() {
        let text = format!(
            "master_replid:{NEW}\nmaster_replid2:{OLD}\nsecond_repl_offset:151\nrepl_backlog_active:1\n\
             repl_backlog_first_byte_offset:101\nrepl_backlog_histlen:100\n"
        );
        let goes_on = |text: &str, id: &str, offset: u64| {
            Backlog::of(&Info::parse(text)).goes_on_from(ReplicationId::parse(id).unwrap(), Offset(offset))
        };
        for (id, offset, expected) in [
            (NEW, 99, false),
            (NEW, 100, true),
            (NEW, 200, true),
            (NEW, 201, false),
            (OLD, 99, false),
            (OLD, 150, true),
            (OLD, 151, false),
            (&"f".repeat(40), 150, false),
        ] {
            assert_eq!(goes_on(&text, id, offset), expected, "{id} {offset}");
        }
        assert!(!goes_on(&text.replace("active:1", "active:0"), NEW, 150));
        // No server was promoted: the former id is zeros, and its end is -1.
        let first =
            text.replace(OLD, &"0".repeat(40)).replace("second_repl_offset:151", "second_repl_offset:-1");
        assert!(goes_on(&first, NEW, 150) && !goes_on(&first, &"0".repeat(40), 150));
        assert!(!goes_on("role:master", NEW, 0));
    }
}
