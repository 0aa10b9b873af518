use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::engine;
use crate::tensor::cpu;

/// Four buckets of ten values, the first to leave of two tensors.
const TENSORS: [Range<usize>; 5] = [0..10, 10..20, 20..30, 30..36, 36..40];
const SOON: Duration = Duration::from_secs(5);

/// One of two ranks, whose peer adds what it has: tells the length of what is summed, in place or by way of the host, and fails where
/// it is told to.
struct Spy {
    tell: Sender<usize>,
    in_place: bool,
    fails: bool,
}

impl Spy {
    fn sees(&self, length: usize) -> Result<(), EngineError> {
        self.tell.send(length).unwrap();
        if self.fails { Err(EngineError::Join("a test".to_owned())) } else { Ok(()) }
    }
}

impl Engine for Spy {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        2
    }

    fn all_reduce_i64(&mut self, operation: &'static str, data: &mut Vec<i64>) -> Result<(), EngineError> {
        data.iter_mut().filter(|_| operation != "tail").for_each(|word| *word *= 2);
        self.sees(data.len())
    }

    fn all_reduce_converted(
        &mut self,
        _: &'static str,
        _: &mut Vec<i64>,
        _: usize,
        _: crate::engine::Convert<'_>,
        _: &mut [f32],
    ) -> Result<(), EngineError> {
        unreachable!("sums are the device's")
    }

    fn all_reduce_f32(&mut self, _: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        data.iter_mut().for_each(|value| *value *= 2.0);
        self.sees(data.len())
    }

    fn all_reduce_bf16(&mut self, _: &'static str, _: &mut Vec<u16>) -> Result<(), EngineError> {
        unreachable!("bf16 is the host's")
    }

    fn sums_there(&self) -> bool {
        self.in_place
    }

    unsafe fn all_reduce_there(
        &mut self,
        _: &'static str,
        address: u64,
        length: usize,
        of: engine::Sum,
    ) -> Result<(), EngineError> {
        assert!(self.in_place);
        // SAFETY: the caller's word, on the cores' memory.
        unsafe {
            match of {
                engine::Sum::I64 => {
                    std::slice::from_raw_parts_mut(address as *mut i64, length).iter_mut().for_each(|q| *q *= 2)
                }
                engine::Sum::F32 => {
                    std::slice::from_raw_parts_mut(address as *mut f32, length).iter_mut().for_each(|v| *v *= 2.0)
                }
            }
        }
        self.sees(length)
    }

    fn barrier(&mut self, _: &'static str) -> Result<(), EngineError> {
        Ok(())
    }

    fn abort(&mut self, _: &str, _: u8) {}

    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

fn spy(in_place: bool, fails: bool) -> (Spy, Receiver<usize>) {
    let (tell, told) = channel();
    (Spy { tell, in_place, fails }, told)
}

fn there(reduction: Reduction) -> There {
    let layout = TailLayout { lanes: 2, terms: 1, tensors: 5 };
    let mut there = There::new(&TENSORS, reduction, layout, true, &cpu());
    assert!(there.overlaps());
    there.begin(&[Some(1); 5], 2);
    there
}

fn gradient(place: usize, value: f32) -> Tensor<1> {
    flat::values(vec![value; TENSORS[place].len()], &cpu())
}

#[test]
fn buckets_leave_as_they_become_whole_with_all_lanes_in_them_and_in_one_order() {
    for (reduction, in_place) in [Reduction::Exact, Reduction::Fast].into_iter().flat_map(|r| [(r, true), (r, false)]) {
        let ((mut engine, told), mut there) = (spy(in_place, false), there(reduction));
        there.lane(0, |add| (0..5).for_each(|place| add(place, gradient(place, 0.25))));
        let nothing = || told.recv_timeout(Duration::from_millis(100)).is_err();
        let heard = || told.recv_timeout(SOON).unwrap();
        let said = there.overlapped(&mut engine, 1, |listener| {
            listener.tell(4, gradient(4, 4.0));
            assert!(nothing(), "a part of a bucket");
            listener.tell(3, gradient(3, 3.0));
            assert_eq!(heard(), 10, "the last tensors are on their way already");
            listener.tell(1, gradient(1, 1.0));
            assert!(nothing(), "out of order: it waits for its turn");
            listener.tell(2, gradient(2, 2.0));
            assert_eq!((heard(), heard()), (10, 10));
            "backward's own"
        });
        assert_eq!(said.unwrap(), "backward's own");
        assert!(nothing(), "the first tensor has no gradient: its bucket leaves at the end");
        let (seen, _) = there.seen().unwrap();
        let bits = |values: [f32; 5]| values.map(f32::to_bits).to_vec();
        assert_eq!([&seen[0].max_bits, &seen[1].max_bits], [&bits([0.25; 5]), &bits([0.0, 1.0, 2.0, 3.0, 4.0])]);
        there.finish(&mut engine).unwrap();
        assert_eq!((heard(), heard()), (10, there.tail().len()), "{reduction:?}: the tail goes last");
        let of_tensor = [0.5f32, 2.5, 4.5, 6.5, 8.5].into_iter().zip(TENSORS);
        let expected: Vec<f32> = of_tensor.flat_map(|(v, tensor)| vec![v; tensor.len()]).collect();
        assert_eq!(there.gradient(), expected, "{reduction:?}, in place: {in_place}");
    }
}

#[test]
fn a_sum_that_fails_ends_the_step_with_its_error_when_backward_has_ended() {
    for in_place in [true, false] {
        let ((mut engine, told), mut there) = (spy(in_place, true), there(Reduction::Exact));
        let error = there.overlapped(&mut engine, 0, |listener| {
            [4, 3].into_iter().for_each(|place| listener.tell(place, gradient(place, 3.0)));
            assert_eq!(told.recv_timeout(SOON), Ok(10));
            (0..3).rev().for_each(|place| listener.tell(place, gradient(place, 1.0)));
        });
        assert_eq!(error, Err(EngineError::Join("a test".to_owned())));
        assert!(told.try_recv().is_err(), "nothing follows a failure");
    }
}

/// On a GPU the event behind a bucket's kernels: nothing is summed before it, and what the device could not do is the error.
#[test]
fn a_bucket_in_the_devices_memory_is_summed_when_it_is_made_and_not_before() {
    for made in [Ok(()), Err("no memory".to_owned())] {
        let (mut engine, told) = spy(true, false);
        let (sum, lent) = flat::Lendable::lend(flat::values(vec![1.5; 10], &cpu()));
        let (open, gate) = channel();
        let lent = lent.unwrap().until(async move { gate.recv().unwrap() });
        let way = std::thread::spawn(move || {
            let mut own = Duration::ZERO;
            Leaving::InPlace(Sum::Plain(sum), Ok(lent)).sum(&mut engine, &mut own).map(|sum| sum.there(&cpu()))
        });
        assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "it is not made yet");
        open.send(made.clone()).unwrap();
        match (way.join().unwrap(), made) {
            (Ok(Sum::Plain(sum)), Ok(())) => {
                assert_eq!((told.recv_timeout(SOON), read(&sum)), (Ok(10), vec![3.0; 10]));
            }
            (Err(error), Err(_)) => {
                assert!(matches!(&error, EngineError::Memory { message, .. } if message == "no memory"), "{error}");
                assert_eq!(crate::train::error::TrainError::from(error).exit_code(), 2, "no peer is to blame");
                assert!(told.try_recv().is_err());
            }
            _ => panic!("what was made is summed, what was not is an error"),
        }
    }
}

#[test]
fn a_panic_in_backward_is_told_and_leaves_nobody_waiting() {
    let ((mut engine, _told), mut there) = (spy(true, false), there(Reduction::Exact));
    let kept = std::cell::RefCell::new(None);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        there.overlapped(&mut engine, 0, |listener| {
            [4, 3].into_iter().for_each(|place| listener.tell(place, gradient(place, 3.0)));
            *kept.borrow_mut() = Some(listener); // as a graph that is still there does
            panic!("a shape that does not fit");
        })
    }));
    let words = panic.unwrap_err();
    assert_eq!(words.downcast_ref(), Some(&"a shape that does not fit"));
}
