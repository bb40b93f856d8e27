//! HPACK (RFC 7541): the examples of its appendix, what a decoder must refuse, and round trips.

use super::frames::literal;
use http::h2::hpack::{Decoder, Encoder, FieldBounds, HpackError};

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<String, HpackError> {
    let mut found = String::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let bounds = FieldBounds { string_bytes_max: 1 << 16, list_bytes_max: 1 << 16 };
    decoder.decode(block, bounds, |name, value| {
        found.push_str(&format!("{}: {}\n", text(name), text(value)));
    })?;
    Ok(found)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Appendices C.3 and C.4: three requests on one connection, without and with Huffman.
#[test]
fn requests_of_the_appendix() {
    let first = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
    let second = format!("{first}cache-control: no-cache\n");
    let third = ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value\n";
    let plain = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    let huffman = [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::default();
        for (block, expected) in blocks.iter().zip([first, &second, third]) {
            assert_eq!(decode(&mut decoder, &hex(block)).as_deref(), Ok(expected));
        }
    }
}

/// Appendices C.5 and C.6: three answers, whose table of 256 bytes has to forget.
#[test]
fn answers_of_the_appendix() {
    let plain = [
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ];
    let huffman = [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ];
    let date = |second: u32| format!("date: Mon, 21 Oct 2013 20:13:{second} GMT\n");
    let location = "location: https://www.example.com\n";
    let expected = [
        format!(":status: 302\ncache-control: private\n{}{location}", date(21)),
        format!(":status: 307\ncache-control: private\n{}{location}", date(21)),
        format!(
            ":status: 200\ncache-control: private\n{}{location}content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n",
            date(22)
        ),
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::new(256);
        for (block, expected) in blocks.iter().zip(&expected) {
            assert_eq!(decode(&mut decoder, &hex(block)).as_ref(), Ok(expected));
        }
    }
}

#[test]
fn what_a_decoder_refuses() {
    let rows: &[(&str, &str, &str, HpackError)] = &[
        ("2.3.3", "index 0", "80", HpackError::Index),
        ("2.3.3", "an index behind both tables", "be", HpackError::Index),
        ("2.3.3", "the name of an entry that is not there", "7e 01 61", HpackError::Index),
        ("5.1", "an integer that never ends", "ff ff ff ff ff ff ff ff", HpackError::Integer),
        ("5.1", "an integer that is cut off", "ff 80", HpackError::Truncated),
        ("5.2", "a string that is cut off", "40 0a 61", HpackError::Truncated),
        ("5.2", "no value", "40 01 61", HpackError::Truncated),
        ("5.2", "Huffman padding of 8 bits", "40 01 61 81 ff", HpackError::Huffman),
        ("5.2", "Huffman padding of more", "40 01 61 82 07 ff", HpackError::Huffman),
        ("5.2", "Huffman padding of zeros", "40 01 61 81 00", HpackError::Huffman),
        ("5.2", "EOS", "40 01 61 84 ff ff ff ff", HpackError::Huffman),
        ("6.3", "a table above the announced size", "3f e2 1f", HpackError::TableSize),
        ("4.2", "a size behind a field", "82 20", HpackError::TableSize),
        ("4.2", "a size at the end", "82 84 3f e1 1f", HpackError::TableSize),
    ];
    for (section, what, block, expected) in rows {
        assert_eq!(decode(&mut Decoder::default(), &hex(block)), Err(*expected), "{section} {what}");
    }
}

#[test]
fn table_sizes() {
    let mut decoder = Decoder::default();
    let mut block = Vec::new();
    literal(0x40, b"a", b"b", &mut block);
    assert_eq!(decode(&mut decoder, &block).as_deref(), Ok("a: b\n"));
    assert_eq!(decode(&mut decoder, &[0xbe]).as_deref(), Ok("a: b\n"));
    // To nothing and back: two sizes before the first field (section 4.2), and the entry is gone.
    assert_eq!(decode(&mut decoder, &hex("20 3f e1 1f be")), Err(HpackError::Index));
    // A smaller table, once acknowledged, must be named before anything else.
    let mut decoder = Decoder::default();
    decoder.set_table_bytes_max(100);
    assert_eq!(decode(&mut decoder, &[0x82]), Err(HpackError::TableSizeMissing));
    let mut decoder = Decoder::default();
    decoder.set_table_bytes_max(100);
    assert_eq!(decode(&mut decoder, &hex("3f 45 82")).as_deref(), Ok(":method: GET\n"));
    // An entry larger than the table empties it (section 4.4).
    let mut decoder = Decoder::new(64);
    assert!(decode(&mut decoder, &block).is_ok());
    let mut large = Vec::new();
    literal(0x40, b"large", &[b'x'; 100], &mut large);
    assert!(decode(&mut decoder, &large).is_ok());
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(HpackError::Index));
}

#[test]
fn lists_end_at_the_bound() {
    let mut block = Vec::new();
    literal(0, b"name", b"value", &mut block);
    let count = |string_bytes_max, list_bytes_max| {
        let mut count = 0;
        let bounds = FieldBounds { string_bytes_max, list_bytes_max };
        Decoder::default().decode(&block.repeat(3), bounds, |_, _| count += 1).map(|()| count)
    };
    assert_eq!(count(5, 27), Ok(3));
    assert_eq!(count(5, 26), Err(HpackError::ListTooLarge));
    assert_eq!(count(4, 27), Err(HpackError::StringTooLarge));
    // The length alone tells: the string does not have to come.
    let bounds = FieldBounds { string_bytes_max: 100, list_bytes_max: 1000 };
    let start = Decoder::default().decode(&[0, 0x7f, 0x10], bounds, |_, _| {});
    assert_eq!(start, Err(HpackError::StringTooLarge));
}

fn encode(encoder: &mut Encoder, list: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in list {
        encoder.field(name.as_bytes(), value.as_bytes(), &mut out);
    }
    out
}

#[test]
fn what_stays_the_same_costs_a_byte() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let list = [("Server", "gapura"), ("X-Frame-Options", "DENY"), ("Content-Type", "text/html")];
    for round in 0..4 {
        let block = encode(&mut encoder, &list);
        let expected = "server: gapura\nx-frame-options: DENY\ncontent-type: text/html\n";
        assert_eq!(decode(&mut decoder, &block).as_deref(), Ok(expected));
        assert_eq!(block.len() == list.len(), round >= 2, "{round}: {}", block.len());
    }
    // Secrets are never indexed (section 7.1.3).
    for _ in 0..3 {
        let block = encode(&mut encoder, &[("authorization", "x"), ("Set-Cookie", "id=1")]);
        assert_eq!(block[0] & 0xf0, 0x10);
        assert!(block.len() > 8, "nothing was taken from the table");
        assert_eq!(decode(&mut decoder, &block).as_deref(), Ok("authorization: x\nset-cookie: id=1\n"));
    }
}

#[test]
fn an_encoder_announces_the_sizes_it_was_given() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let list = [("a", "b"), ("c", "d")];
    for _ in 0..3 {
        decode(&mut decoder, &encode(&mut encoder, &list)).unwrap();
    }
    encoder.set_table_bytes_max(0);
    encoder.set_table_bytes_max(1000);
    let block = encode(&mut encoder, &list);
    assert_eq!(block[..4], hex("20 3f c9 07"), "the smallest, then the last (section 4.2)");
    assert_eq!(decode(&mut decoder, &block).as_deref(), Ok("a: b\nc: d\n"));
    encoder.set_table_bytes_max(1 << 20);
    assert_eq!(encode(&mut encoder, &[])[..], hex("3f e1 1f")[..], "no more than the usual size is used");
}

proptest::proptest! {
    /// Any lists, in one direction of one connection, with tables of any size.
    #[test]
    fn what_is_encoded_is_decoded(
        lists in proptest::collection::vec(
            proptest::collection::vec(("[a-c-]{1,3}|server|date|:status|set-cookie", "[a-c]{0,3}|\\PC{0,40}"), 0..8), 1..20),
        sizes in proptest::collection::vec(0usize..300, 20)
    ) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for (list, size) in lists.iter().zip(sizes) {
            if size < 200 {
                encoder.set_table_bytes_max(size);
            }
            let list: Vec<(&str, &str)> = list.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let block = encode(&mut encoder, &list);
            let expected: String = list.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            proptest::prop_assert_eq!(decode(&mut decoder, &block), Ok(expected));
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(blocks: Vec<Vec<u8>>) {
        let mut decoder = Decoder::default();
        for block in blocks {
            if decode(&mut decoder, &block).is_err() {
                break;
            }
        }
    }
}
