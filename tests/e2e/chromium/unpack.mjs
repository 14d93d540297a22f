// Unpacks the archives of the package beside this file into the folder that is named: node unpack.mjs FOLDER
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";

const packed = join(import.meta.dirname, "node_modules", "@sparticuz", "chromium", "bin");
for (const name of ["chromium", "al2023.tar", "fonts.tar"]) {
  writeFileSync(join(process.argv[2], name), brotliDecompressSync(readFileSync(join(packed, `${name}.br`))), { mode: 0o755 });
}
