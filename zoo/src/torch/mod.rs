//! libtorch behind the tensor trait.
