pub async fn run() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> { Ok(std::process::ExitCode::SUCCESS) }
