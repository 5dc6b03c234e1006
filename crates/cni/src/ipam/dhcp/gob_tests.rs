use proptest::prelude::*;

use super::*;

const TYPES: &[Type] = &[
    Type {
        id: 65,
        fields: Fields::Struct(&[("Name", TEXT), ("N", INT), ("All", 66), ("Data", BYTES), ("U", UINT)]),
    },
    Type { id: 66, fields: Fields::List(67) },
    Type { id: 67, fields: Fields::Struct(&[("X", INT)]) },
];

fn all(mut stream: Vec<u8>) -> Vec<Value> {
    let mut decoder = Decoder::new();
    std::iter::from_fn(|| decoder.next(&mut stream).unwrap()).collect()
}

#[test]
fn the_example_of_the_specification_is_read() {
    // Package documentation of encoding/gob: type Point struct { X, Y int }; Point{22, 33}.
    let stream =
        "1f ff 81 03 01 01 05 50 6f 69 6e 74 01 ff 82 00 01 02 01 01 58 01 04 00 01 01 59 01 04 00 00 00
                  07 ff 82 01 2c 01 42 00";
    let bytes: Vec<u8> = stream.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    assert_eq!(all(bytes), [Value::Struct(vec![("X".into(), Value::Int(22)), ("Y".into(), Value::Int(33))])]);
}

#[test]
fn what_is_not_whole_is_waited_for_and_what_is_too_long_is_not() {
    let value = Value::Struct(vec![("Name".into(), Value::Text("a".repeat(300)))]);
    let stream = Encoder::new(TYPES).encode(65, &value);
    for cut in 0..stream.len() {
        let mut decoder = Decoder::new();
        let mut part = stream[..cut].to_vec();
        assert_eq!(decoder.next(&mut part), Ok(None), "{cut}");
        part.extend(&stream[cut..]);
        assert_eq!(decoder.next(&mut part), Ok(Some(value.clone())), "{cut}");
    }
    assert_eq!(Decoder::new().next(&mut vec![0xfc, 0x7f, 0xff, 0xff, 0xff]), Err(GobError::Long));
}

#[test]
fn a_type_within_itself_ends() {
    // 65 is a list of 65, in the struct 66.
    let mut stream = Encoder::new(&[
        Type { id: 66, fields: Fields::Struct(&[("A", 65)]) },
        Type { id: 65, fields: Fields::List(65) },
    ])
    .encode(66, &Value::Struct(vec![]));
    let mut message = vec![0xff, 132, 1];
    message.extend([1; 60]);
    put_bytes(&mut stream, &message);
    let mut decoder = Decoder::new();
    while decoder.next(&mut stream).is_ok_and(|value| value.is_some()) {}
    assert_eq!(decoder.next(&mut stream), Err(GobError::Excess));
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(
        name in ".{0,200}", n in any::<i64>(), u in any::<u64>(), data in prop::collection::vec(any::<u8>(), 1..300),
        xs in prop::collection::vec(1i64..9, 1..5),
    ) {
        let all_ = xs.iter().map(|x| Value::Struct(vec![("X".into(), Value::Int(*x))])).collect();
        let fields = [
            ("Name", Value::Text(name)), ("N", Value::Int(n)), ("All", Value::List(all_)),
            ("Data", Value::Bytes(data)), ("U", Value::Uint(u)),
        ];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_zero());
        let value = Value::Struct(fields.map(|(name, value)| (name.to_owned(), value)).collect());
        let mut encoder = Encoder::new(TYPES);
        let mut stream = encoder.encode(65, &value);
        stream.extend(encoder.encode(65, &value));
        prop_assert_eq!(all(stream), [value.clone(), value]);
    }

    #[test]
    fn no_stream_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flip in 0usize..120, to in any::<u8>()) {
        let _ = Decoder::new().next(&mut bytes.clone());
        let value = Value::Struct(vec![("All".into(), Value::List(vec![Value::Struct(vec![])]))]);
        let mut stream = Encoder::new(TYPES).encode(65, &value);
        let at = flip % stream.len();
        stream[at] = to;
        let mut decoder = Decoder::new();
        while decoder.next(&mut stream).is_ok_and(|value| value.is_some()) {}
    }
}
