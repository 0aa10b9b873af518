#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("x")]
    X,
}
