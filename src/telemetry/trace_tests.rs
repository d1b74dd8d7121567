use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(TRACEPARENT, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

#[test]
fn what_a_traceparent_says() {
    for (text, flags) in [
        (format!("00-{TRACE}-{SPAN}-01"), 1),
        (format!("00-{TRACE}-{SPAN}-00"), 0),
        // Level 2: the id is random.
        (format!("00-{TRACE}-{SPAN}-02"), 2),
        (format!("00-{TRACE}-{SPAN}-03"), 3),
        // Flags that nobody knows are not passed on.
        (format!("00-{TRACE}-{SPAN}-ff"), 3),
        (format!("00-{TRACE}-{SPAN}-fc"), 0),
        // A version to come, which may say more.
        (format!("01-{TRACE}-{SPAN}-01"), 1),
        (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), 1),
        (format!("fe-{TRACE}-{SPAN}-01-"), 1),
    ] {
        let context = TraceContext::parse(text.as_bytes()).expect(&text);
        assert_eq!(context.trace.to_string(), TRACE, "{text}");
        assert_eq!(context.span.to_string(), SPAN, "{text}");
        assert_eq!(serde_json::json!(context.trace), TRACE, "{text}");
        assert_eq!(context.flags, flags, "{text}");
        assert_eq!(
            context.header(),
            format!("00-{TRACE}-{SPAN}-{flags:02x}"),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_traceparent() {
    let zeros = "0".repeat(32);
    for text in [
        String::new(),
        "00".to_owned(),
        "-".repeat(55),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("FE-{TRACE}-{SPAN}-01"),
        format!("0-{TRACE}-{SPAN}-01"),
        format!("000-{TRACE}-{SPAN}-1"),
        format!("00-{zeros}-{SPAN}-01"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
        format!("00-{TRACE}-{SPAN}-0A"),
        format!("00-{TRACE}-{SPAN}-0g"),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}-001"),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{TRACE}-{SPAN}-01-"),
        format!("00-{TRACE}-{SPAN}-01 "),
        format!("cc-{TRACE}-{SPAN}-01.more"),
        format!("cc-{TRACE}-{SPAN}-011"),
        format!("00_{TRACE}_{SPAN}_01"),
        format!("00-{TRACE}{SPAN}--01"),
        format!("00-{}g-{SPAN}-01", &TRACE[1..]),
        format!("00-+{}-{SPAN}-01", &TRACE[1..]),
        format!("00- {}-{SPAN}-01", &TRACE[1..]),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
        format!(" 00-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-é"),
    ] {
        assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn a_trusted_trace_goes_on_and_any_other_begins_anew() {
    let theirs = format!("00-{TRACE}-{SPAN}-01");
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    for (values, trusted, sample, goes_on, sampled) in [
        (&[&*theirs][..], true, 0.0, true, true),
        (&[&*unsampled], true, 1.0, true, false),
        (&[&*theirs], false, 0.0, false, false),
        (&[&*theirs], false, 1.0, false, true),
        (&[], true, 0.0, false, false),
        (&[], true, 1.0, false, true),
        (&["nonsense"], true, 0.0, false, false),
        (&[&*theirs, &*theirs], true, 0.0, false, false),
    ] {
        let trace = Trace::of(&headers(values), trusted, sample);
        let case = format!("{values:?} {trusted} {sample}");
        assert_eq!(trace.context.trace.to_string() == TRACE, goes_on, "{case}");
        let parent = trace.parent.map(|span| span.to_string());
        assert_eq!(parent.as_deref(), goes_on.then_some(SPAN), "{case}");
        assert_ne!(trace.context.span.to_string(), SPAN, "{case}");
        assert_eq!(trace.is_sampled(), sampled, "{case}");
    }
}

#[test]
fn a_share_of_the_traces_is_recorded() {
    let id = |low: u64| TraceId(NonZeroU128::new(1 << 100 | u128::from(low)).expect("not zero"));
    let half = 1 << 55;
    for (low, share, among) in [
        (0, 1.0, true),
        (0, 0.999, false),
        (half - 1, 0.5, false),
        (half, 0.5, true),
        ((1 << 56) - 1, 0.0, false),
        ((1 << 56) - 1, 0.000_001, true),
        // What is above those bits need not be random.
        (0xff << 56, 0.5, false),
    ] {
        assert_eq!(id(low).is_among(share), among, "{low:x} {share}");
    }
    let count = (0..10_000)
        .filter(|_| TraceId::random().is_among(0.2))
        .count();
    assert!((1_500..2_500).contains(&count), "{count}");
}

#[test]
fn ids_differ() {
    let ids: std::collections::HashSet<TraceId> = (0..10_000).map(|_| TraceId::random()).collect();
    assert_eq!(ids.len(), 10_000);
    let ids: std::collections::HashSet<SpanId> = (0..10_000).map(|_| SpanId::random()).collect();
    assert_eq!(ids.len(), 10_000);
}
