//! Server-sent events: bytes in, events out. Pure.

/// One event. Only what RunPod sends: an id, and its data lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

/// Cuts a byte stream into events, across any chunk borders.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    id: Option<String>,
    data: Vec<String>,
}

/// A log line longer than this is cut: a broken server must not fill our memory.
const MAX_LINE: usize = 1 << 20;

impl Decoder {
    /// Takes the next bytes and gives the events that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    let text = String::from_utf8_lossy(&line);
                    events.extend(self.take(text.strip_suffix('\r').unwrap_or(&text)));
                }
                _ if self.line.len() >= MAX_LINE => {}
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn take(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            let id = self.id.take();
            return (!data.is_empty()).then(|| Event {
                id,
                data: data.join("\n"),
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "data" => self.data.push(value.to_owned()),
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
            assert!(decoder.feed(&vec![b'x'; MAX_LINE]).is_empty());
        }
        assert!(decoder.line.len() <= MAX_LINE);
    }
}
