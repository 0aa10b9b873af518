//! Lines of the tables of methods.

/// A line of a table of methods.
#[derive(Debug)]
pub struct TableRow {
    /// Method.
    pub name: String,
    /// Stands out.
    pub is_model: bool,
    /// Values.
    pub cells: Vec<Cell>,
}

/// A value of a table.
#[derive(Debug)]
pub struct Cell {
    /// As printed.
    pub text: String,
    /// Best of its column.
    pub best: bool,
}
