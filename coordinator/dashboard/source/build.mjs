// Builds src/ and styles/ into one script, one style sheet and the page that names them.
// `node build.mjs [FOLDER]`; without a folder, into ../built.  The same sources give the same bytes.
import { build } from "esbuild";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? join(here, "..", "built"));

await rm(target, { recursive: true, force: true });
await mkdir(join(target, "assets"), { recursive: true });

const made = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx", style: "styles/index.css" },
  outdir: join(target, "assets"),
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome123", "firefox121", "safari17.5"], // the first with light-dark()
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none", // the licences stand in a file of their own
  charset: "utf8",
  metafile: true,
  logLevel: "warning",
});

const files = Object.keys(made.metafile.outputs).map((path) => basename(path));
const named = (start, end) => {
  const found = files.find((file) => file.startsWith(start) && file.endsWith(end));
  if (!found) throw new Error(`no ${start}…${end} was built`);
  return found;
};

const page = await readFile(join(here, "index.html"), "utf8");
await writeFile(
  join(target, "index.html"),
  page.replace("app.js", named("app-", ".js")).replace("style.css", named("style-", ".css")),
);
await writeFile(join(target, "assets", "icon.svg"), await readFile(join(here, "icon.svg")));

// The licences of all packages that went into the bundle.
const packages = new Set();
for (const input of Object.keys(made.metafile.inputs)) {
  const match = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (match) packages.add(match[1]);
}
const notices = [];
for (const name of [...packages].sort()) {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const text = await readFile(join(folder, "LICENSE"), "utf8");
  notices.push(`${name} ${version} (${license})\n\n${text.trim()}\n`);
}
await writeFile(
  join(target, "assets", "licences.txt"),
  `The dashboard is made with these packages.\n\n${notices.join(`\n${"-".repeat(78)}\n\n`)}`,
);
