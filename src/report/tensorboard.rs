//! TensorBoard's event files: scalars, histograms, images. Knows no model and no run: tags, steps and numbers in, one file out.
//!
//! A file is TFRecords (length u64, its masked CRC-32C, an `Event` message, its masked CRC-32C; little endian). Field
//! numbers are those of `tensorflow/core/util/event.proto` and `framework/summary.proto`; a wrong one is read as another
//! message without a word, so `tests/python/test_tensorboard.py` reads a file back with TensorBoard's own reader.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;
use syncytia_shards::durable::AppendFile;

/// Longest time that events wait in memory.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// Most bytes that events wait in memory.
const FLUSH_BYTES: usize = 64 << 10;
/// The same while the disk refuses them; what is more is lost.
const KEPT_BYTES: usize = 1 << 20;
/// Bars of a histogram.
const BUCKETS: usize = 30;
const SESSION_START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    image: Option<Image>,
    #[prost(message, optional, tag = "5")]
    histo: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(double, tag = "1")]
    min: f64,
    #[prost(double, tag = "2")]
    max: f64,
    #[prost(double, tag = "3")]
    num: f64,
    #[prost(double, tag = "4")]
    sum: f64,
    #[prost(double, tag = "5")]
    sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    bucket: Vec<f64>,
}

/// One open event file. Every method gives the system's error; the caller decides that a run outlives it. The file always
/// ends with a whole record, for readers stop at half of one and see nothing behind it. What the disk refuses waits for a
/// while and is tried again with every event, so that the first success means that the disk takes it again.
#[derive(Debug)]
pub struct EventFile {
    file: AppendFile,
    waiting: Vec<u8>,
    refused: bool,
    flushed: Instant,
}

impl EventFile {
    /// Makes `path`, which must not exist, and writes the version record.
    ///
    /// # Errors
    /// The system's; `AlreadyExists` when another writer took the name.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = AppendFile::create_new(path)?;
        let mut events = Self { file, waiting: Vec::new(), refused: false, flushed: Instant::now() };
        events.write(0, |event| event.file_version = Some("brain.Event:2".to_owned()))?;
        events.flush()?; // without it the rest is not read
        Ok(events)
    }

    /// Says that a session starts after `global_step`: readers forget what earlier files hold beyond it.
    pub fn start_after(&mut self, global_step: u64) -> io::Result<()> {
        // Readers drop events with a step >= the start's.
        self.write(global_step + 1, |event| event.session_log = Some(SessionLog { status: SESSION_START }))
    }

    /// Numbers at a step.
    pub fn scalars(&mut self, global_step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        let value = |&(tag, value): &(&str, f64)| Value {
            tag: tag.to_owned(),
            simple_value: Some(value as f32),
            ..Value::default()
        };
        self.summary(global_step, scalars.iter().map(value).collect())
    }

    /// The distribution of the finite `values`; nothing is written when there is none.
    pub fn histogram(&mut self, global_step: u64, tag: &str, values: &[f32]) -> io::Result<()> {
        let Some(histogram) = histogram(values) else { return Ok(()) };
        self.summary(global_step, vec![Value { tag: tag.to_owned(), histo: Some(histogram), ..Value::default() }])
    }

    /// An RGB picture as the bytes of a PNG file.
    pub fn image(&mut self, global_step: u64, tag: &str, png: Vec<u8>) -> io::Result<()> {
        // A PNG's first chunk begins with width and height, big endian.
        let side = |at: usize| {
            let bytes = png.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map(i32::from_be_bytes).ok_or_else(|| io::Error::other(format!("{tag} is no PNG")))
        };
        let (width, height) = (side(16)?, side(20)?);
        let image = Image { height, width, colorspace: 3, encoded_image_string: png };
        self.summary(global_step, vec![Value { tag: tag.to_owned(), image: Some(image), ..Value::default() }])
    }

    /// Brings everything to the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushed = Instant::now();
        let written = self.file.append(&self.waiting);
        self.refused = written.is_err();
        if !self.refused || self.waiting.len() > KEPT_BYTES {
            self.waiting.clear();
        }
        written
    }

    fn summary(&mut self, global_step: u64, value: Vec<Value>) -> io::Result<()> {
        self.write(global_step, |event| event.summary = Some(Summary { value }))
    }

    fn write(&mut self, global_step: u64, fill: impl FnOnce(&mut Event)) -> io::Result<()> {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
        let mut event = Event { wall_time, step: global_step as i64, ..Event::default() };
        fill(&mut event);
        self.waiting.extend(record(&event.encode_to_vec()));
        let due = self.refused || self.waiting.len() > FLUSH_BYTES || self.flushed.elapsed() > FLUSH_EVERY;
        if due { self.flush() } else { Ok(()) }
    }
}

impl Drop for EventFile {
    fn drop(&mut self) {
        let _ = self.flush(); // `sync` is the way to learn how it went
    }
}

/// A TFRecord of `data`.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked_crc(data).to_le_bytes());
    out
}

/// TFRecord's mask keeps a CRC of data that holds CRCs from being trivial.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn histogram(values: &[f32]) -> Option<Histogram> {
    let finite = || values.iter().map(|&v| f64::from(v)).filter(|v| v.is_finite());
    let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if min > max {
        return None;
    }
    let width = ((max - min) / BUCKETS as f64).max(f64::MIN_POSITIVE);
    let mut bucket = vec![0.0; BUCKETS];
    for v in finite() {
        bucket[(((v - min) / width) as usize).min(BUCKETS - 1)] += 1.0;
    }
    let limit = |i: usize| if i == BUCKETS { max } else { min + width * i as f64 };
    Some(Histogram {
        min,
        max,
        num: bucket.iter().sum(),
        sum: finite().sum(),
        sum_squares: finite().map(|v| v * v).sum(),
        bucket_limit: (1..=BUCKETS).map(limit).collect(),
        bucket,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_tensorflow_frames_it() {
        // The first record of an event file that TensorFlow wrote: length 24, its masked CRC-32C.
        assert_eq!(&record(&[0; 24])[..12], &[0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn a_histogram_counts_every_finite_value_once() {
        let h = histogram(&[0.0, 1.0, 1.0, f32::NAN, 3.0, f32::INFINITY]).unwrap();
        assert_eq!((h.min, h.max, h.num, h.sum, h.sum_squares), (0.0, 3.0, 4.0, 5.0, 11.0));
        assert_eq!((h.bucket.iter().sum::<f64>(), h.bucket[0], h.bucket[10], h.bucket[29]), (4.0, 1.0, 2.0, 1.0));
        assert_eq!(*h.bucket_limit.last().unwrap(), 3.0);
        assert_eq!(histogram(&[f32::NAN]), None);
        assert_eq!(histogram(&[2.0, 2.0]).unwrap().num, 2.0);
    }

    #[test]
    fn a_name_that_is_taken_is_not_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        EventFile::create(&path).unwrap();
        assert_eq!(EventFile::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    /// Writes what `tests/python/test_tensorboard.py` reads, into the folder that SYNCYTIA_TEST_EVENTS names.
    #[test]
    fn files_for_the_python_reader() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = std::env::var_os("SYNCYTIA_TEST_EVENTS").map_or(scratch.path().to_owned(), Into::into);
        let mut first = EventFile::create(&dir.join("events.out.tfevents.1")).unwrap();
        first.start_after(0).unwrap();
        for step in 1..=60 {
            first.scalars(step, &[("train/loss", 1.0 / step as f64), ("train/lr", 1e-3)]).unwrap();
        }
        first.sync().unwrap();
        // A run that stopped after 60 steps and goes on from its checkpoint of step 40.
        let mut second = EventFile::create(&dir.join("events.out.tfevents.2")).unwrap();
        second.start_after(40).unwrap();
        for step in 41..=80 {
            second.scalars(step, &[("train/loss", 2.0 / step as f64)]).unwrap();
        }
        second.histogram(80, "weights", &[-1.0, 0.0, 0.5, 2.0]).unwrap();
        let mut png = io::Cursor::new(Vec::new());
        image::RgbImage::new(4, 2).write_to(&mut png, image::ImageFormat::Png).unwrap();
        second.image(80, "map", png.into_inner()).unwrap();
        second.sync().unwrap();
        assert!(std::fs::metadata(dir.join("events.out.tfevents.2")).unwrap().len() > 1000);
    }
}
