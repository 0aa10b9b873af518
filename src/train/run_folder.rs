#[derive(Debug, Clone, Default)]
pub struct RunFolder(std::path::PathBuf);
impl RunFolder {
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}
