//! What each type of value is made of.

use super::facts::Magic;

/// Something that comes next in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Magic and version.
    Header,
    /// The next opcode or type.
    Opcode,
    /// An expiry, its opcode included.
    Expire { seconds: bool },
    /// The number of a database.
    SelectDatabase,
    /// That many bytes.
    Skip(u64),
    /// That many lengths; at least one.
    Lengths(u64),
    /// That many strings.
    Strings(u64),
    /// A string whose content matters.
    Keep(Item),
    /// A number, and then as many elements.
    Count(Element),
    /// That many elements.
    Repeat(u64, Element),
    /// A score in the old form.
    OldDouble,
    /// Parts of a module's value up to its end mark.
    ModuleValue,
    /// An absolute expiry inside a hash: the earliest of all its fields, or that of one.
    FieldExpiry,
    /// The expiry of a field, relative to the earliest.
    FieldTtl,
}

/// A string whose content matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    AuxName,
    AuxValue,
    Function,
    Listpack,
}

/// One of several equal parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    String,
    Pair,
    OldScore,
    Score,
    QuickNode,
    /// A field with its expiry, relative to the earliest one.
    ExpiringField,
    /// A field of Valkey with its absolute expiry.
    ValkeyField,
    /// An entry that a consumer group is waiting for.
    Pending,
    /// The same, in the list of a consumer.
    ConsumerPending,
    Group1,
    Group2,
    Group3,
    Consumer1,
    Consumer3,
}

impl Element {
    /// How many strings it is, when it is nothing else.
    pub(super) fn strings(self) -> Option<u64> {
        match self {
            Self::String => Some(1),
            Self::Pair => Some(2),
            _ => None,
        }
    }
}

/// What one element is made of.
pub(super) fn tasks_of(element: Element) -> &'static [Task] {
    match element {
        Element::String => &[Task::Strings(1)],
        Element::Pair => &[Task::Strings(2)],
        Element::OldScore => &[Task::Strings(1), Task::OldDouble],
        Element::Score => &[Task::Strings(1), Task::Skip(8)],
        Element::QuickNode => &[Task::Lengths(1), Task::Strings(1)],
        Element::ExpiringField => &[Task::FieldTtl, Task::Strings(2)],
        Element::ValkeyField => &[Task::Strings(2), Task::FieldExpiry],
        // Id, time of delivery, number of deliveries.
        Element::Pending => &[Task::Skip(24), Task::Lengths(1)],
        Element::ConsumerPending => &[Task::Skip(16)],
        Element::Group1 => GROUP_1,
        Element::Group2 => GROUP_2,
        Element::Group3 => GROUP_3,
        // Name, time it was last seen, what waits for it; since version 3 also when it was last active.
        Element::Consumer1 => &[Task::Strings(1), Task::Skip(8), Task::Count(Element::ConsumerPending)],
        Element::Consumer3 => &[Task::Strings(1), Task::Skip(16), Task::Count(Element::ConsumerPending)],
    }
}

/// Name, last id, what waits for all, consumers; since version 2 also how many were read.
const GROUP_1: &[Task] =
    &[Task::Strings(1), Task::Lengths(2), Task::Count(Element::Pending), Task::Count(Element::Consumer1)];
const GROUP_2: &[Task] =
    &[Task::Strings(1), Task::Lengths(3), Task::Count(Element::Pending), Task::Count(Element::Consumer1)];
const GROUP_3: &[Task] =
    &[Task::Strings(1), Task::Lengths(3), Task::Count(Element::Pending), Task::Count(Element::Consumer3)];

/// What follows the key of a value of that type; `None` for a type that is not known.
pub(super) fn tasks_of_type(kind: u8, magic: Magic) -> Option<&'static [Task]> {
    Some(match kind {
        // String, and the containers that are stored as one string: zipmap, ziplists, intset, listpacks.
        0 | 9 | 10 | 11 | 12 | 13 | 16 | 17 | 20 => &[Task::Strings(1)],
        // List, set, list of ziplists.
        1 | 2 | 14 => &[Task::Count(Element::String)],
        3 => &[Task::Count(Element::OldScore)],
        4 => &[Task::Count(Element::Pair)],
        5 => &[Task::Count(Element::Score)],
        7 => &[Task::Lengths(1), Task::ModuleValue],
        // Listpacks of a stream; length and last id, since version 2 also first id, largest deleted id and entries
        // added; groups.
        15 => &[Task::Count(Element::Pair), Task::Lengths(3), Task::Count(Element::Group1)],
        18 => &[Task::Count(Element::QuickNode)],
        19 => &[Task::Count(Element::Pair), Task::Lengths(8), Task::Count(Element::Group2)],
        21 => &[Task::Count(Element::Pair), Task::Lengths(8), Task::Count(Element::Group3)],
        22 if magic == Magic::Valkey => &[Task::Count(Element::ValkeyField)],
        24 if magic == Magic::Redis => &[Task::FieldExpiry, Task::Count(Element::ExpiringField)],
        25 if magic == Magic::Redis => &[Task::FieldExpiry, Task::Keep(Item::Listpack)],
        _ => return None,
    })
}
