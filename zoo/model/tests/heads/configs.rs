//! The heads of the golden files.

use laps_model::heads::{ChanAggregation, D2sVseConfig, HeadConfig, Pooling};

const D2S_VSE: D2sVseConfig = D2sVseConfig { embed_size: 48, mlp_size: 24, prompt_tokens: 5, blocks: 2, heads: 4 };

/// Each head's file name and configuration, at the sizes of the golden tensors.
pub fn heads() -> Vec<(&'static str, HeadConfig)> {
    heads_of(HeadConfig::Sgr { sim_dim: 40, steps: 3 }, D2S_VSE)
}

/// The same heads with another `sgr` and `d2s_vse`.
pub fn heads_of(sgr: HeadConfig, d2s_vse: D2sVseConfig) -> Vec<(&'static str, HeadConfig)> {
    let vsepp = |pooling| HeadConfig::Vsepp { pooling };
    vec![
        ("vsepp_mean", vsepp(Pooling::Mean)),
        ("vsepp_cls", vsepp(Pooling::Cls)),
        ("vsepp_gpo", vsepp(Pooling::Gpo)),
        ("scan_t2i", HeadConfig::ScanT2i),
        ("scan_i2t", HeadConfig::ScanI2t),
        ("scan_all", HeadConfig::ScanAll),
        ("max_mean", HeadConfig::MaxMean),
        ("sgr", sgr),
        ("chan", HeadConfig::Chan { aggregation: ChanAggregation::Mean }),
        ("chan_lse", HeadConfig::Chan { aggregation: ChanAggregation::Lse }),
        ("d2s_vse", HeadConfig::D2sVse(d2s_vse)),
    ]
}

/// A first-stage model of D2S-VSE, which has no prompt. Its similarities are `sims_pretrain` of the file of `d2s_vse`.
pub fn d2s_vse_pretrain() -> HeadConfig {
    HeadConfig::D2sVse(D2sVseConfig { prompt_tokens: 0, ..D2S_VSE })
}
