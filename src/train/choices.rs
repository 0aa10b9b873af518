//! What `[train]` chooses among.

use serde::{Deserialize, Serialize};

/// What ranks compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeOn {
    /// The cores.
    #[default]
    Cpu,
    /// An NVIDIA GPU per process (feature `cuda`).
    Cuda,
    /// What wgpu finds: a driver of Vulkan, also one in software (feature `wgpu`). Shows on any machine what runs on a GPU.
    Wgpu,
}

impl ComputeOn {
    /// Whether tensors have a place of their own, beside the host's memory.
    pub fn is_elsewhere(self) -> bool {
        self != ComputeOn::Cpu
    }
}

/// Where training keeps what it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// On the host: gradients come to it in every step and parameters go back; less memory of the device.
    Host,
    /// Where the model is: nothing of the parameters' size visits the host.
    Device,
}

/// What products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// f32.
    #[default]
    F32,
    /// f32 of which a GPU's tensor cores read ten bits of mantissa, where they take it.
    Tf32,
    /// bf16, on a GPU.
    Bf16,
}

/// What is computed again in backward. The bits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing: what backward needs is kept.
    #[default]
    None,
    /// Elementwise operations.
    Cheap,
    /// The blocks that a model repeats, of which only the inputs are kept.
    Blocks,
}

/// How gradients are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// 64-bit fixed point: the same bits for any number of ranks.
    #[default]
    Exact,
    /// f32: a tolerance only.
    Fast,
    /// bf16 between ranks: half the bytes of f32, a wider tolerance.
    FastBf16,
}

impl Reduction {
    /// The precision of the sums, in words.
    pub fn precision(self) -> &'static str {
        match self {
            Reduction::Exact => "64-bit fixed point",
            Reduction::Fast => "f32",
            Reduction::FastBf16 => "bf16 between ranks, f32 within one",
        }
    }
}

/// What a NaN or infinity does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonFinite {
    /// Ends the run, naming the records.
    #[default]
    Stop,
    /// Leaves the step out; three in a row stop.
    Skip,
}

/// Number of ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ranks {
    /// One per core, at most `lanes`.
    #[default]
    Auto,
    /// This many.
    Count(usize),
}

impl Ranks {
    /// The number for a process alone: on a GPU it is one rank.
    pub fn alone(self, on: ComputeOn, cores: usize, lanes: usize) -> usize {
        match on {
            ComputeOn::Cpu => self.resolve(cores, lanes),
            ComputeOn::Cuda | ComputeOn::Wgpu => 1,
        }
    }

    /// The number for this machine and config.
    pub fn resolve(self, cores: usize, lanes: usize) -> usize {
        match self {
            Ranks::Auto => cores.clamp(1, lanes),
            Ranks::Count(n) => n,
        }
    }
}

impl Serialize for Ranks {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Ranks::Auto => serializer.serialize_str("auto"),
            Ranks::Count(n) => serializer.serialize_u64(*n as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Ranks {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Ranks;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a positive number or \"auto\"")
            }

            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Ranks, E> {
                match usize::try_from(n) {
                    Ok(n) if n > 0 => Ok(Ranks::Count(n)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Signed(n), &self)),
                }
            }

            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Ranks, E> {
                self.visit_i64(n as i64)
            }

            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<Ranks, E> {
                match s {
                    "auto" => Ok(Ranks::Auto),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(s), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
