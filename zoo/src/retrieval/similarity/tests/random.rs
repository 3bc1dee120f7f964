//! Against the definition in f64 on random embeddings, and against itself under other plans.
