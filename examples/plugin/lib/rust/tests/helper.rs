//! The helper's own tests: against hostile input, and through the C boundary as the host uses it.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr;

use cpa_plugin::*;

fn echo(call: &Call) -> Answer {
    Ok(object(|o| o.bytes("Body", call.request)))
}

fn refuse(_: &Call) -> Answer {
    Err(Failure { http_status: 429, ..Failure::new("quota", "used \"up\"") })
}

fn panics(_: &Call) -> Answer {
    panic!("a client's secret")
}

fn nothing(_: &Call) -> Answer {
    Ok(String::new())
}

static ROUTES: [Route; 4] = [("echo", echo), ("refuse", refuse), ("panics", panics), ("nothing", nothing)];

#[test]
fn envelopes_are_those_of_the_contract() {
    assert_eq!(reply(&ROUTES, Some(c"echo"), b"{}"), (0, r#"{"ok":true,"result":{"Body":"e30="}}"#.into()));
    assert_eq!(reply(&ROUTES, Some(c"nothing"), b""), (0, r#"{"ok":true,"result":{}}"#.into()));
    let (status, failure) = reply(&ROUTES, Some(c"refuse"), b"");
    assert_eq!(status, 0);
    assert_eq!(failure, r#"{"ok":false,"error":{"code":"quota","message":"used \"up\"","http_status":429}}"#);
    let (status, unknown) = reply(&ROUTES, Some(c"other"), b"");
    assert_eq!(status, 0);
    assert_eq!(unknown, r#"{"ok":false,"error":{"code":"unknown_method","message":"unknown method"}}"#);
    let (status, no_text) = reply(&ROUTES, Some(c"\xff"), b"");
    assert_eq!((status, no_text.contains("method is not utf-8")), (1, true));
    let (status, none) = reply(&ROUTES, None, b"");
    assert_eq!((status, none.contains("method is required")), (1, true));
}

#[test]
fn panics_become_failures_without_their_message() {
    let (status, said) = reply(&ROUTES, Some(c"panics"), b"");
    assert_eq!(
        (status, said.as_str()),
        (1, r#"{"ok":false,"error":{"code":"plugin_error","message":"the plugin panicked"}}"#)
    );
}

unsafe extern "C" fn host(
    _: *mut c_void,
    method: *const c_char,
    request: *const u8,
    len: usize,
    out: *mut Buffer,
) -> c_int {
    let method = CStr::from_ptr(method).to_str().unwrap();
    let request = std::slice::from_raw_parts(request, len);
    let answer = match method {
        "good" => format!(r#"{{"ok":true,"result":{}}}"#, std::str::from_utf8(request).unwrap()),
        "empty" => r#"{"ok":true}"#.to_owned(),
        "bad" => r#"{"ok":false,"error":{"message":"no such thing"}}"#.to_owned(),
        "silent" => r#"{"ok":false}"#.to_owned(),
        "garbage" => "{".to_owned(),
        _ => return 7,
    };
    let leaked = Box::leak(answer.into_bytes().into_boxed_slice());
    out.write(Buffer { ptr: leaked.as_mut_ptr().cast(), len: leaked.len() });
    0
}

unsafe extern "C" fn host_free(ptr: *mut c_void, len: usize) {
    drop(Box::from_raw(ptr::slice_from_raw_parts_mut(ptr.cast::<u8>(), len)));
}

#[test]
fn the_boundary_holds() {
    let api = HostApi { abi_version: 1, host_ctx: ptr::null_mut(), call: Some(host), free_buffer: Some(host_free) };
    let mut plugin = PluginApi { abi_version: 0, call: None, free_buffer: None, shutdown: None };
    unsafe {
        assert_eq!(init(&api, ptr::null_mut(), &ROUTES, None), 1);
        assert_eq!(init(&api, &mut plugin, &ROUTES, None), 0);
        assert_eq!((plugin.abi_version, plugin.shutdown.is_none()), (1, true));
        let (call, free) = (plugin.call.unwrap(), plugin.free_buffer.unwrap());
        let mut out = Buffer { ptr: ptr::null_mut(), len: 0 };
        assert_eq!(call(c"echo".as_ptr(), b"abc".as_ptr(), 3, &mut out), 0);
        let said = std::slice::from_raw_parts(out.ptr.cast::<u8>(), out.len).to_vec();
        assert_eq!(said, br#"{"ok":true,"result":{"Body":"YWJj"}}"#);
        free(out.ptr, out.len);
        free(ptr::null_mut(), 0);
        assert_eq!(call(c"echo".as_ptr(), ptr::null(), 0, &mut out), 0);
        free(out.ptr, out.len);
        assert_eq!(call(ptr::null(), ptr::null(), 0, &mut out), 1);
        free(out.ptr, out.len);
        assert_eq!(call(c"panics".as_ptr(), ptr::null(), 0, &mut out), 1);
        free(out.ptr, out.len);
        assert_eq!(call(c"echo".as_ptr(), ptr::null(), 0, ptr::null_mut()), 1);
    }
    assert_eq!(host_call("good", r#"{"a":1}"#), Ok(r#"{"a":1}"#.into()));
    assert_eq!(host_call("empty", "{}"), Ok("null".into()));
    assert_eq!(host_call("bad", "{}"), Err("no such thing".into()));
    assert_eq!(host_call("silent", "{}"), Err("the host call failed".into()));
    assert_eq!(host_call("garbage", "{}"), Err("the host's answer is not JSON".into()));
    assert_eq!(host_call("unknown", "{}"), Err("the host refused the call with 7".into()));
    assert_eq!(host_call("a\0b", "{}"), Err("the method has a NUL in it".into()));
}

/// Writes what was read.
fn rewrite(value: &Value) -> String {
    match &value.data {
        Data::Null => "null".into(),
        Data::Bool(yes) => yes.to_string(),
        Data::Number(digits) => (*digits).into(),
        Data::Text(text) => quoted(text),
        Data::List(items) => format!("[{}]", items.iter().map(rewrite).collect::<Vec<_>>().join(",")),
        Data::Object(members) => {
            let written = members.iter().map(|one| format!("{}:{}", quoted(&one.name), rewrite(&one.value)));
            format!("{{{}}}", written.collect::<Vec<_>>().join(","))
        }
    }
}

#[test]
fn good_json_is_read() {
    for (document, expected) in [
        (" {\"a\" : [1, -0.5e+3 , true,false,null ,\"x\"] } ", r#"{"a":[1,-0.5e+3,true,false,null,"x"]}"#),
        (r#""\u00fc\ud83d\ude00\ud83d\n\/\\\"""#, "\"ü😀\u{FFFD}\\n/\\\\\\\"\""),
        (r#""\ud83dx""#, "\"\u{FFFD}x\""),
        (r#""\ud83d\u0041""#, "\"\u{FFFD}A\""),
        ("[]", "[]"),
        ("{}", "{}"),
        ("0", "0"),
        (
            r#""grüße 漢字 and much more than eight bytes of text""#,
            r#""grüße 漢字 and much more than eight bytes of text""#,
        ),
    ] {
        assert_eq!(parse(document).map(|value| rewrite(&value)).as_deref(), Some(expected), "{document}");
    }
}

#[test]
fn bad_json_is_refused() {
    for document in [
        "",
        " ",
        "{",
        "}",
        "[1",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "1 2",
        "01",
        "1.",
        ".5",
        "-",
        "1e",
        "+1",
        "tru",
        "nulll",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"eight by\u{1}te\"",
        "\"\\ud83d\\u12\"",
    ] {
        assert_eq!(parse(document), None, "{document}");
    }
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(parse(&deep(MAX_DEPTH)).is_some());
    assert!(parse(&deep(MAX_DEPTH + 1)).is_none());
    assert!(parse(&"[".repeat(1 << 20)).is_none());
    assert_eq!(members(&format!("{{\"a\":{}", "[".repeat(1 << 20))).count(), 0);
}

#[test]
fn look_ups_follow_the_host() {
    let value =
        parse(r#"{"name":"a","NAME":"b","n":-5,"x":1.5,"f":true,"b":"YQ==","bad":"Y","z":null,"l":[1]}"#).unwrap();
    assert_eq!(value.text("Name"), Some("b"));
    assert_eq!((value.integer("n"), value.integer("x"), value.integer("name")), (Some(-5), None, None));
    assert_eq!((value.flag("f"), value.flag("n"), value.flag("none")), (true, false, false));
    assert_eq!(value.bytes("b"), Ok(Some(b"a".to_vec())));
    assert_eq!((value.bytes("z"), value.bytes("none")), (Ok(None), Ok(None)));
    assert_eq!((value.bytes("bad"), value.bytes("n")), (Err(NotBase64), Err(NotBase64)));
    assert_eq!((value.get("l").unwrap().items().len(), value.items().len()), (1, 0));
}

#[test]
fn members_come_one_by_one() {
    let document = r#" { "a" : {"x":["\"]}",{}]} , "b\u0062":"text","c":1,"d":oops}"#;
    let all: Vec<_> = members(document).map(|(name, value)| (name.into_owned(), value)).collect();
    let expected = [("a", r#"{"x":["\"]}",{}]}"#), ("bb", "\"text\""), ("c", "1")];
    assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(unquoted(all[1].1).as_deref(), Some("text"));
    assert_eq!((unquoted("\"a\" "), unquoted("a")), (None, None));
    assert_eq!((members("[1]").count(), members("{}").count(), members("").count()), (0, 0, 0));
}

#[test]
fn base64_is_the_hosts() {
    for len in 0..50 {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 37 + len) as u8).collect();
        let mut encoded = String::new();
        base64_encode(&mut encoded, &bytes);
        assert_eq!(base64_decode(&encoded), Some(bytes));
    }
    assert_eq!(base64_decode("YW\r\nI=\n"), Some(b"ab".to_vec()));
    for bad in ["Y", "YQ", "YQ=", "YQ===", "=", "YWI", "YQ==YQ==", "Y Q=", "Y-_=", "====", "ü"] {
        assert_eq!(base64_decode(bad), None, "{bad}");
    }
}

#[test]
fn every_cut_of_a_document_is_survived() {
    let document = r#"{"a":[1,-2.5e3,"x\u00fcy\n",{"b":null}],"c":true}"#;
    for cut in 0..document.len() {
        assert_eq!(parse(&document[..cut]), None, "{cut}");
        let _ = members(&document[..cut]).count();
    }
}
