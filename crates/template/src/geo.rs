//! The table behind `geo`: networks, of which the longest prefix wins, or ranges, of which one may lie in another.
//! Either way it ends as a sorted list of boundaries for each address family, searched by halving.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What became of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOutcome {
    /// It is new, or lies in another.
    Added,
    /// The very same range was there: its value, of this number, is replaced, and nginx warns of it.
    Duplicate(usize),
}

/// The range crosses the border of this one: an error in nginx (`range "..." overlaps "..."`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeOverlap {
    /// First address of the range that was there.
    pub first: Ipv4Addr,
    /// Last address of it.
    pub last: Ipv4Addr,
}

/// A table in the making.
pub struct GeoBuilder<T> {
    values: Vec<T>,
    default: Option<u32>,
    /// By prefix length first, so that longer ones are laid over shorter ones.
    networks4: BTreeMap<(u8, u32), u32>,
    networks6: BTreeMap<(u8, u128), u32>,
    /// First address to last address and value; they never overlap.
    ranges: BTreeMap<u32, (u32, u32)>,
}

impl<T> Default for GeoBuilder<T> {
    fn default() -> Self {
        GeoBuilder {
            values: Vec::new(),
            default: None,
            networks4: BTreeMap::new(),
            networks6: BTreeMap::new(),
            ranges: BTreeMap::new(),
        }
    }
}

impl<T> GeoBuilder<T> {
    /// An empty table.
    pub fn new() -> GeoBuilder<T> {
        GeoBuilder::default()
    }

    /// The value of a number told earlier.
    pub fn value(&self, number: usize) -> Option<&T> {
        self.values.get(number)
    }

    /// The value where nothing else fits; gives back the number of the one it replaces.
    pub fn default_value(&mut self, value: T) -> Option<usize> {
        let number = self.push(value);
        self.default.replace(number).map(|number| number as usize)
    }

    /// Adds a network; bits of `address` beyond `prefix_bits` do not count. Gives back the number of the value it
    /// replaces, where that very network was there: nginx warns of a `duplicate network`.
    pub fn insert_network(&mut self, address: IpAddr, prefix_bits: u8, value: T) -> Option<usize> {
        let number = self.push(value);
        let earlier = match address {
            IpAddr::V4(address) => self.networks4.insert(network4(address, prefix_bits), number),
            IpAddr::V6(address) => self.networks6.insert(network6(address, prefix_bits), number),
        };
        earlier.map(|number| number as usize)
    }

    /// `delete`: false where that very network was not there (`no network "..." to delete`).
    pub fn remove_network(&mut self, address: IpAddr, prefix_bits: u8) -> bool {
        match address {
            IpAddr::V4(address) => self.networks4.remove(&network4(address, prefix_bits)).is_some(),
            IpAddr::V6(address) => self.networks6.remove(&network6(address, prefix_bits)).is_some(),
        }
    }

    /// Adds a range, both ends included (`first` <= `last`). It may lie in one that is there, whose rest stays.
    pub fn insert_range(
        &mut self,
        first: Ipv4Addr,
        last: Ipv4Addr,
        value: T,
    ) -> Result<RangeOutcome, RangeOverlap> {
        let (first, last) = (u32::from(first), u32::from(last));
        let touched = self.ranges.range(..=last).next_back().map(|(first, range)| (*first, *range));
        let Some((old_first, (old_last, old_value))) =
            touched.filter(|(_, (old_last, _))| *old_last >= first)
        else {
            let number = self.push(value);
            self.ranges.insert(first, (last, number));
            return Ok(RangeOutcome::Added);
        };
        if first < old_first || last > old_last {
            return Err(RangeOverlap { first: old_first.into(), last: old_last.into() });
        }
        let number = self.push(value);
        if first > old_first {
            self.ranges.insert(old_first, (first - 1, old_value));
        }
        if last < old_last {
            self.ranges.insert(last + 1, (old_last, old_value));
        }
        self.ranges.insert(first, (last, number));
        let same = first == old_first && last == old_last;
        Ok(if same { RangeOutcome::Duplicate(old_value as usize) } else { RangeOutcome::Added })
    }

    /// `delete`: false where that very range was not there (`no address range "..." to delete`).
    pub fn remove_range(&mut self, first: Ipv4Addr, last: Ipv4Addr) -> bool {
        let found = self.ranges.get(&first.into()).is_some_and(|(old_last, _)| *old_last == u32::from(last));
        if found {
            self.ranges.remove(&first.into());
        }
        found
    }

    /// The table, to be read only.
    pub fn build(self) -> GeoTable<T> {
        let mut spans4 = BTreeMap::from([(0u32, self.default)]);
        for ((prefix_bits, first), value) in &self.networks4 {
            let last = first | !mask(32, *prefix_bits) as u32;
            lay(&mut spans4, *first, last.checked_add(1), Some(*value));
        }
        for (first, (last, value)) in &self.ranges {
            lay(&mut spans4, *first, last.checked_add(1), Some(*value));
        }
        let mut spans6 = BTreeMap::from([(0u128, self.default)]);
        for ((prefix_bits, first), value) in &self.networks6 {
            let last = first | !mask(128, *prefix_bits);
            lay(&mut spans6, *first, last.checked_add(1), Some(*value));
        }
        GeoTable {
            values: self.values,
            spans4: spans4.into_iter().collect(),
            spans6: spans6.into_iter().collect(),
        }
    }

    fn push(&mut self, value: T) -> u32 {
        self.values.push(value);
        (self.values.len() - 1) as u32
    }
}

/// The upper `prefix_bits` of `width` bits.
fn mask(width: u32, prefix_bits: u8) -> u128 {
    let host_bits = width.saturating_sub(u32::from(prefix_bits));
    u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

fn network4(address: Ipv4Addr, prefix_bits: u8) -> (u8, u32) {
    (prefix_bits.min(32), u32::from(address) & mask(32, prefix_bits) as u32)
}

fn network6(address: Ipv6Addr, prefix_bits: u8) -> (u8, u128) {
    (prefix_bits.min(128), u128::from(address) & mask(128, prefix_bits))
}

/// Gives `first` up to `end` (to the last address where there is no end) the value `value`.
fn lay<A: Ord + Copy>(spans: &mut BTreeMap<A, Option<u32>>, first: A, end: Option<A>, value: Option<u32>) {
    if let Some(end) = end {
        let after = spans.range(..=end).next_back().and_then(|(_, value)| *value);
        spans.insert(end, after);
    }
    // Spans that begin inside go; networks are laid by length, so that there are few.
    let inside: Vec<A> = match end {
        Some(end) => spans.range(first..end).map(|(first, _)| *first).collect(),
        None => spans.range(first..).map(|(first, _)| *first).collect(),
    };
    inside.iter().for_each(|first| _ = spans.remove(first));
    spans.insert(first, value);
}

/// A compiled `geo`.
pub struct GeoTable<T> {
    values: Vec<T>,
    /// Where a span begins, with the value it has up to the next one.
    spans4: Vec<(u32, Option<u32>)>,
    spans6: Vec<(u128, Option<u32>)>,
}

impl<T> GeoTable<T> {
    /// The value for `address`. An IPv4 address in IPv6 clothes counts as IPv4; what is no address (a client on a
    /// unix socket) counts as 255.255.255.255, as in nginx.
    pub fn find(&self, address: Option<IpAddr>) -> Option<&T> {
        let number = match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V6(address)) => span(&self.spans6, u128::from(address)),
            Some(IpAddr::V4(address)) => span(&self.spans4, u32::from(address)),
            None => span(&self.spans4, u32::MAX),
        };
        self.values.get(number? as usize)
    }

    /// Every value given, in order, also those replaced later.
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

fn span<A: Ord + Copy>(spans: &[(A, Option<u32>)], address: A) -> Option<u32> {
    let behind = spans.partition_point(|(first, _)| *first <= address);
    spans.get(behind.checked_sub(1)?)?.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(table: &GeoTable<&'static str>, address: &str) -> Option<&'static str> {
        table.find(address.parse().ok()).copied()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut builder = GeoBuilder::new();
        for (network, prefix_bits, value) in [
            ("10.1.2.3", 32, "host"),
            ("10.0.0.0", 8, "ten"),
            ("10.1.0.0", 16, "ten one"),
            ("10.1.2.77", 24, "ten one two"),
            ("255.0.0.0", 8, "top"),
            ("2001:db8::", 32, "documentation"),
            ("2001:db8:1::", 48, "one of it"),
        ] {
            assert_eq!(builder.insert_network(network.parse().unwrap(), prefix_bits, value), None);
        }
        assert_eq!(builder.insert_network("10.1.0.0".parse().unwrap(), 16, "again"), Some(2));
        assert_eq!(builder.value(2), Some(&"ten one"));
        assert!(builder.remove_network("2001:db8:1::".parse().unwrap(), 48));
        assert!(!builder.remove_network("10.1.0.0".parse().unwrap(), 17));
        assert_eq!(builder.default_value("default"), None);
        let table = builder.build();
        for (address, expected) in [
            ("10.1.2.3", "host"),
            ("10.1.2.2", "ten one two"),
            ("10.1.2.255", "ten one two"),
            ("10.1.3.0", "again"),
            ("10.1.1.255", "again"),
            ("10.2.0.0", "ten"),
            ("10.255.255.255", "ten"),
            ("11.0.0.0", "default"),
            ("9.255.255.255", "default"),
            ("0.0.0.0", "default"),
            ("255.255.255.255", "top"),
            ("::ffff:10.2.3.4", "ten"),
            ("2001:db8:1::1", "documentation"),
            ("2001:db9::", "default"),
            ("::", "default"),
            ("not an address", "top"),
        ] {
            assert_eq!(find(&table, address), Some(expected), "{address}");
        }
    }

    #[test]
    fn without_a_default_the_rest_has_no_value() {
        let mut builder = GeoBuilder::new();
        builder.insert_network("0.0.0.0".parse().unwrap(), 1, "low");
        let table = builder.build();
        assert_eq!(find(&table, "127.255.255.255"), Some("low"));
        assert_eq!(find(&table, "128.0.0.0"), None);
        assert_eq!(find(&table, "::1"), None);
    }

    #[test]
    fn the_whole_space_is_a_network() {
        let mut builder = GeoBuilder::new();
        builder.insert_network("1.2.3.4".parse().unwrap(), 0, "all");
        builder.insert_network("::1".parse().unwrap(), 0, "all six");
        let table = builder.build();
        assert_eq!((find(&table, "255.255.255.255"), find(&table, "::2")), (Some("all"), Some("all six")));
    }

    #[test]
    fn a_range_may_lie_in_another_but_not_cross_it() {
        let mut builder = GeoBuilder::new();
        let address = |last: u8| Ipv4Addr::new(10, 0, 0, last);
        let mut insert = |first, last, value| builder.insert_range(address(first), address(last), value);
        assert_eq!(insert(10, 99, "outer"), Ok(RangeOutcome::Added));
        assert_eq!(insert(20, 29, "inner"), Ok(RangeOutcome::Added));
        assert_eq!(insert(10, 12, "front"), Ok(RangeOutcome::Added));
        assert_eq!(insert(90, 99, "back"), Ok(RangeOutcome::Added));
        assert_eq!(insert(20, 29, "again"), Ok(RangeOutcome::Duplicate(1)));
        assert_eq!(insert(95, 105, "x"), Err(RangeOverlap { first: address(90), last: address(99) }));
        assert_eq!(insert(5, 105, "x"), Err(RangeOverlap { first: address(90), last: address(99) }));
        assert_eq!(insert(25, 35, "x"), Err(RangeOverlap { first: address(30), last: address(89) }));
        assert_eq!(insert(0, 9, "before"), Ok(RangeOutcome::Added));
        assert!(!builder.remove_range(address(0), address(8)));
        assert!(builder.remove_range(address(10), address(12)));
        let table = builder.build();
        let got: Vec<_> = [0, 9, 10, 12, 13, 19, 20, 29, 30, 89, 90, 99, 100]
            .map(|last| table.find(Some(address(last).into())).copied().unwrap_or("-"))
            .into();
        assert_eq!(got.join(" "), "before before - - outer outer again again outer outer back back -");
    }
}
