//! Parameter initialisation that gives the same bits on every platform.

use crate::{
    Result,
    array::Array,
    params::{Init, Parameter},
    random::SplitMix64,
};

/// Standard deviation of [`Init::Normal`]: `initializer_range` of the encoders' Hugging Face configurations.
const INITIALIZER_RANGE: f64 = 0.02;

/// An initialised tensor for each of `parameters`, in their order. A tensor depends only on `seed`, its name, its shape
/// and its [`Init`], so adding a layer to a model does not change the others.
pub fn init_parameters(parameters: &[Parameter], seed: u64) -> Result<Vec<(String, Array)>> {
    parameters.iter().map(|parameter| Ok((parameter.name.clone(), tensor(parameter, seed)?))).collect()
}

fn tensor(parameter: &Parameter, seed: u64) -> Result<Array> {
    let mut random = SplitMix64::named(seed, &parameter.name);
    let count = parameter.elements();
    let values = match parameter.init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Normal => (0..count).map(|_| (random.normal() * INITIALIZER_RANGE) as f32).collect(),
        Init::Uniform { inputs } => uniform(&mut random, libm::sqrt(1.0 / inputs.max(1) as f64), count),
        Init::Xavier { inputs, outputs } => {
            uniform(&mut random, libm::sqrt(6.0 / (inputs + outputs).max(1) as f64), count)
        }
    };
    Array::new(&parameter.shape, values)
}

fn uniform(random: &mut SplitMix64, bound: f64, count: usize) -> Vec<f32> {
    (0..count).map(|_| ((2.0 * random.uniform() - 1.0) * bound) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::init_parameters;
    use crate::params::{Init, Parameter};

    fn parameter(name: &str, shape: &[usize], init: Init) -> Parameter {
        Parameter { name: name.to_owned(), shape: shape.to_vec(), init }
    }

    #[test]
    fn tensor_depends_only_on_its_name_and_the_seed() {
        let wanted = [parameter("a.weight", &[4, 6], Init::Normal), parameter("b.weight", &[4, 6], Init::Normal)];
        let both = init_parameters(&wanted, 7).unwrap();
        let second = init_parameters(&wanted[1..], 7).unwrap();
        assert_eq!(both[1], second[0]);
        assert_ne!(both[0].1, both[1].1);
        assert_ne!(init_parameters(&wanted, 8).unwrap()[0].1, both[0].1);
    }

    #[test]
    fn values_have_the_distribution_of_their_init() {
        let shape = [30, 10, 4, 4];
        let xavier = Init::Xavier { inputs: 100, outputs: 50 };
        let kinds = [Init::Zeros, Init::Ones, Init::Normal, Init::Uniform { inputs: 160 }, xavier];
        let made = init_parameters(&kinds.map(|kind| parameter("weight", &shape, kind)), 7).unwrap();
        assert!(made[0].1.values().iter().all(|&value| value == 0.0));
        assert!(made[1].1.values().iter().all(|&value| value == 1.0));
        let deviation = |values: &[f32]| {
            (values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
        };
        // 4,800 values: the standard error of the deviation is 1 %.
        assert!((deviation(made[2].1.values()) / 0.02 - 1.0).abs() < 0.05);
        for (uniform, bound) in [(&made[3].1, (1.0_f64 / 160.0).sqrt()), (&made[4].1, 0.2)] {
            let largest = uniform.values().iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            // Rounding to f32 may exceed the bound by one unit.
            assert!(f64::from(largest) <= bound * (1.0 + 1e-7) && f64::from(largest) > 0.99 * bound);
            assert!((deviation(uniform.values()) / (bound / 3.0_f64.sqrt()) - 1.0).abs() < 0.05);
        }
    }

    /// Pinned, because a checkpoint made from a seed must be the same on every platform.
    #[test]
    fn values_are_pinned() {
        let made = init_parameters(
            &[parameter("weight", &[2, 2], Init::Normal), parameter("fc.weight", &[2, 2], Init::Uniform { inputs: 2 })],
            7,
        )
        .unwrap();
        let bits: Vec<u32> = made.iter().flat_map(|(_, array)| array.values().iter().map(|v| v.to_bits())).collect();
        let expected = [
            1_010_060_962,
            1_028_697_919,
            3_139_200_624,
            3_120_634_116,
            3_204_835_828,
            3_199_815_107,
            3_151_425_560,
            1_042_928_534,
        ];
        assert_eq!(bits, expected);
    }
}
