//! Header fields: an ordered list whose names and values are ranges of one buffer that is used again and again.
//!
//! A head costs one copy of its bytes and one small entry a field. Nothing is allocated once the two vectors have
//! grown to the size of a usual head, because [`Fields::clear`] keeps what they have.

/// A range of the text of a [`Fields`] (or of a head).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub start: u32,
    /// Where it ends, exclusively.
    pub end: u32,
}

impl Span {
    /// The range from `start` to `end`. Offsets past 4 GiB are cut, which no bounded head reaches.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: cut(start), end: cut(end.max(start)) }
    }

    /// How many bytes it covers.
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Does it cover nothing?
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// The bytes of `text` it covers; empty when it reaches outside.
    pub fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

fn cut(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// One entry: a hash of the lowercase name, so that most names are told apart without looking at them.
#[derive(Clone, Copy, Debug)]
struct Field {
    hash: u32,
    name: Span,
    value: Span,
}

/// An ordered list of header fields. Names keep their case, lookups ignore it.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
    /// The first letters of all names, a bit each: most lookups are for names that are not there, and end here.
    initials: u32,
}

impl Fields {
    /// An empty list; allocates nothing.
    pub const fn new() -> Fields {
        Fields { text: Vec::new(), list: Vec::new(), initials: 0 }
    }

    /// Forgets every field and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
        self.initials = 0;
    }

    /// How many fields there are; a name that is there twice counts twice.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_with(name, |text| text.extend_from_slice(value));
    }

    /// Adds a field at the end whose value `write` appends to the buffer it is given. It must only append.
    pub fn push_with(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let middle = self.text.len();
        write(&mut self.text);
        let end = self.text.len();
        self.initials |= initial(name);
        self.list.push(Field {
            hash: name_hash(name),
            name: Span::new(start, middle),
            value: Span::new(middle, end),
        });
    }

    /// False where no name begins like this one.
    pub(crate) fn may_have(&self, name: &[u8]) -> bool {
        self.initials & initial(name) != 0
    }

    /// The value of the first field called `name`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Is there a field called `name`?
    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// The values of every field called `name`, in order.
    pub fn all<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let may_be_there = self.may_have(name);
        let hash = if may_be_there { name_hash(name) } else { 0 };
        let list = if may_be_there { self.list.as_slice() } else { &[] };
        list.iter()
            .filter(move |field| field.hash == hash && self.is_called(field, name))
            .map(|field| field.value.of(&self.text))
    }

    /// The values of every field whose name, in lowercase and with `_` for `-`, is `name`: how `$http_name`,
    /// `$sent_http_name` and their like look.
    pub fn all_as_variable<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        // An underscore in front may stand for a hyphen.
        let may_be_there = self.may_have(name) || name.starts_with(b"_") && self.may_have(b"-");
        let list = if may_be_there { self.list.as_slice() } else { &[] };
        list.iter()
            .filter(move |field| {
                field.name.len() == name.len()
                    && field.name.of(&self.text).iter().zip(name).all(|(&ours, &theirs)| {
                        theirs == if ours == b'-' { b'_' } else { ours.to_ascii_lowercase() }
                    })
            })
            .map(|field| field.value.of(&self.text))
    }

    /// Every field as (name, value), in order, names as they were written.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        self.list.iter().map(|field| (field.name.of(&self.text), field.value.of(&self.text)))
    }

    /// The field at `index` as (name, value).
    pub fn at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let field = self.list.get(index)?;
        Some((field.name.of(&self.text), field.value.of(&self.text)))
    }

    /// Removes every field called `name`; says whether there was one. Its bytes stay in the buffer until
    /// [`Fields::clear`].
    pub fn remove(&mut self, name: &[u8]) -> bool {
        if !self.may_have(name) {
            return false;
        }
        let hash = name_hash(name);
        let before = self.list.len();
        let text = &self.text;
        self.list.retain(|field| field.hash != hash || !field.name.of(text).eq_ignore_ascii_case(name));
        self.list.len() != before
    }

    /// Keeps the fields that `keep` (name, value) accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let text = &self.text;
        self.list.retain(|field| keep(field.name.of(text), field.value.of(text)));
    }

    /// Gives the first field called `name` this value, in its place, and removes the others; adds the field when
    /// there was none.
    pub fn replace(&mut self, name: &[u8], value: &[u8]) {
        let hash = name_hash(name);
        let start = self.text.len();
        let Some(first) =
            self.list.iter().position(|field| field.hash == hash && self.is_called(field, name))
        else {
            return self.push(name, value);
        };
        self.text.extend_from_slice(value);
        let value = Span::new(start, self.text.len());
        let text = &self.text;
        let mut index = 0;
        self.list.retain_mut(|field| {
            let here = index;
            index += 1;
            if here == first {
                field.value = value;
            }
            here <= first || field.hash != hash || !field.name.of(text).eq_ignore_ascii_case(name)
        });
    }

    /// Appends every field of `other`.
    pub fn extend_from(&mut self, other: &Fields) {
        for (name, value) in other.iter() {
            self.push(name, value);
        }
    }

    fn is_called(&self, field: &Field, name: &[u8]) -> bool {
        field.name.of(&self.text).eq_ignore_ascii_case(name)
    }

    /// Adds a field whose bytes are, or are going to be, at these places of [`Fields::text`]: how a head parser
    /// fills the list before it copies the head.
    pub(crate) fn push_spans(&mut self, source: &[u8], name: Span, value: Span) {
        let text = name.of(source);
        self.initials |= initial(text);
        self.list.push(Field { hash: name_hash(text), name, value });
    }

    /// Replaces the text by `bytes`, into which the spans pushed so far point.
    pub(crate) fn settle(&mut self, bytes: &[u8]) {
        self.text.clear();
        self.text.extend_from_slice(bytes);
    }

    /// Appends to the text without making a field of it; returns the place.
    pub(crate) fn append_text(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        Span::new(start, self.text.len())
    }

    /// Repeats a piece of the text at its end; returns the new place.
    pub(crate) fn copy_text(&mut self, span: Span) -> Span {
        let start = self.text.len();
        let end = (span.end as usize).min(start);
        self.text.extend_from_within((span.start as usize).min(end)..end);
        Span::new(start, self.text.len())
    }

    /// Adds a field at the end whose value is a piece of the text.
    pub(crate) fn push_copy(&mut self, name: &[u8], value: Span) {
        let name_span = self.append_text(name);
        self.initials |= initial(name);
        self.list.push(Field { hash: name_hash(name), name: name_span, value });
    }

    /// The buffer that spans point into. A parsed head keeps its request or status line here too.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Name and value of the field at `index`, as places in the text.
    pub(crate) fn spans_at(&self, index: usize) -> Option<(Span, Span)> {
        self.list.get(index).map(|field| (field.name, field.value))
    }
}

/// The bit of a name's first letter, the same for both cases.
fn initial(name: &[u8]) -> u32 {
    1 << (name.first().copied().unwrap_or_default() & 31)
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(
                self.iter()
                    .map(|(name, value)| format!("{}: {}", bstr::BStr::new(name), bstr::BStr::new(value))),
            )
            .finish()
    }
}

/// Same fields, same order; names compared without regard to case.
impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        self.len() == other.len()
            && self
                .iter()
                .zip(other.iter())
                .all(|(ours, theirs)| ours.0.eq_ignore_ascii_case(theirs.0) && ours.1 == theirs.1)
    }
}

impl Eq for Fields {}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(fields: I) -> Fields {
        let mut list = Fields::new();
        for (name, value) in fields {
            list.push(name, value);
        }
        list
    }
}

/// A hash that is the same for names that differ in case only. It looks at the first and the last eight bytes and
/// the length, so that it costs the same for every name; equal hashes are always followed by a comparison.
fn name_hash(name: &[u8]) -> u32 {
    const LOWERCASE: u64 = 0x2020_2020_2020_2020;
    let (first, last) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (name.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0),
    };
    let mixed = (first | LOWERCASE)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add((last | LOWERCASE).rotate_left(23))
        .wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 32) as u32 ^ (name.len() as u32).wrapping_mul(0x0101_0101)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn sample() -> Fields {
        [("Host", "a"), ("X-One", "1"), ("x-one", "2"), ("Accept", ""), ("X-ONE", "3")]
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect()
    }

    #[test]
    fn names_are_found_whatever_their_case() {
        let fields = sample();
        assert_eq!(fields.get(b"hOST"), Some(&b"a"[..]));
        assert_eq!(fields.get(b"accept"), Some(&b""[..]));
        assert_eq!(fields.get(b"Hos"), None);
        assert_eq!(fields.all(b"X-One").collect::<Vec<_>>(), [b"1", b"2", b"3"]);
        assert_eq!(fields.all_as_variable(b"x_one").count(), 3);
        assert_eq!(fields.all_as_variable(b"x-one").count(), 0);
        let odd: Fields = [(&b"-Odd"[..], &b"4"[..]), (b"_odd", b"5")].into_iter().collect();
        assert_eq!(odd.all_as_variable(b"_odd").collect::<Vec<_>>(), [b"4", b"5"]);
        assert!(fields.contains(b"HOST") && !fields.contains(b""));
        assert_eq!(fields.len(), 5);
    }

    #[test]
    fn replace_keeps_the_place_of_the_first() {
        let mut fields = sample();
        fields.replace(b"x-oNe", b"new");
        assert_eq!(
            list(&fields),
            [("Host", "a"), ("X-One", "new"), ("Accept", "")].map(|(n, v)| (n.to_string(), v.to_string()))
        );
        fields.replace(b"Via", b"b");
        assert_eq!(fields.get(b"via"), Some(&b"b"[..]));
        assert!(fields.remove(b"VIA") && !fields.remove(b"via"));
        fields.push_with(b"Length", |text| text.extend_from_slice(b"42"));
        assert_eq!(fields.at(3), Some((&b"Length"[..], &b"42"[..])));
        fields.clear();
        assert!(fields.is_empty() && fields.get(b"host").is_none());
    }

    proptest::proptest! {
        #[test]
        fn lookup_agrees_with_a_plain_list(
            pairs in proptest::collection::vec(("[a-cA-C-]{0,10}", "[a-z]{0,3}"), 0..12), wanted in "[a-c-]{0,10}"
        ) {
            let fields: Fields = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            let expected: Vec<&[u8]> = pairs.iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(&wanted))
                .map(|(_, value)| value.as_bytes())
                .collect();
            proptest::prop_assert_eq!(fields.all(wanted.as_bytes()).collect::<Vec<_>>(), expected.clone());
            let mut without = fields.clone();
            proptest::prop_assert_eq!(without.remove(wanted.as_bytes()), !expected.is_empty());
            proptest::prop_assert_eq!(without.len(), pairs.len() - expected.len());
        }
    }
}
