//! Who am I among the ranks? World, signals, exit codes. Knows no tensor and no file of the data.
