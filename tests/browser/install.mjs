// Unpacks the browser that came by npm, with its fonts and the libraries that a small machine lacks, beside it.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const folder = join(here, "node_modules", ".chromium");
export const executable = join(folder, "chromium");

/** Where the package unpacks to, and whether it takes the libraries along, it reads from the environment. */
function unpack() {
  const unfinished = `${folder}.${process.pid}`;
  mkdirSync(unfinished, { recursive: true });
  const script = `import chromium from "@sparticuz/chromium"; await chromium.executablePath();`;
  execFileSync(process.execPath, ["--input-type=module", "--eval", script], {
    cwd: here,
    stdio: "inherit",
    env: { ...process.env, TMPDIR: unfinished, AWS_EXECUTION_ENV: "AWS_Lambda_nodejs20.x" },
  });
  // The same letters everywhere, whatever is installed.
  writeFileSync(
    join(unfinished, "fonts.conf"),
    `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>${join(folder, "fonts")}</dir><cachedir>${join(folder, "fonts-cache")}</cachedir></fontconfig>\n`,
  );
  rmSync(folder, { recursive: true, force: true });
  renameSync(unfinished, folder);
}

if (process.argv[1] === fileURLToPath(import.meta.url) && !existsSync(executable)) unpack();
