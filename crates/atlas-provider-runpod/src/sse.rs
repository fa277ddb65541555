//! Parses server-sent events from bytes. Pure.

/// One event, reduced to what RunPod sends: an id, and its joined data lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

/// Splits a byte stream into events, across any chunk boundaries.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    id: Option<String>,
    data: String,
    /// Whether the event has a data line, which may be empty.
    has_data: bool,
}

/// The maximum size of a line, and of all data lines of an event; the rest is dropped, so that a
/// stream that never ends a line or an event cannot fill our memory.
const MAX_EVENT: usize = 256 * 1024;

impl Decoder {
    /// Takes the next bytes and returns the events that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    let text = String::from_utf8_lossy(&line);
                    events.extend(self.take(text.strip_suffix('\r').unwrap_or(&text)));
                }
                _ if self.line.len() >= MAX_EVENT => {}
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn take(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            let id = self.id.take();
            return std::mem::take(&mut self.has_data).then_some(Event { id, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) && self.data.len() < MAX_EVENT {
                    self.data.push('\n');
                }
                let room = MAX_EVENT.saturating_sub(self.data.len()).min(value.len());
                let fits = (0..=room).rev().find(|at| value.is_char_boundary(*at));
                self.data.push_str(&value[..fits.unwrap_or_default()]);
            }
            _ => {} // comments keep the connection open; `event` and `retry` are not RunPod's
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hi\n\nid: 1\ndata: {\"line\":\"a\"}\n\nid: 2\r\ndata: x\r\ndata:y\r\n\r\ndata: last";

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let event = |id: &str, data: &str| Event {
            id: Some(id.to_owned()),
            data: data.to_owned(),
        };
        for size in 1..STREAM.len() {
            let mut decoder = Decoder::default();
            let events: Vec<_> = STREAM
                .chunks(size)
                .flat_map(|chunk| decoder.feed(chunk))
                .collect();
            assert_eq!(
                events,
                [event("1", "{\"line\":\"a\"}"), event("2", "x\ny")],
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut decoder = Decoder::default();
        for _ in 0..3 {
            assert!(decoder.feed(&vec![b'x'; MAX_EVENT]).is_empty());
        }
        assert!(decoder.line.len() <= MAX_EVENT);
    }

    #[test]
    fn an_event_without_end_does_not_fill_the_memory() {
        let mut decoder = Decoder::default();
        let line = format!("data: {}\n", "é".repeat(30_000));
        for _ in 0..50 {
            assert!(decoder.feed(line.as_bytes()).is_empty());
        }
        assert!(decoder.data.capacity() <= 2 * MAX_EVENT);
        let events = decoder.feed(b"\nid: 2\ndata: x\n\n");
        assert!(events[0].data.len() <= MAX_EVENT && events[0].data.starts_with("éé"));
        assert_eq!(events[1].data, "x");
    }
}
