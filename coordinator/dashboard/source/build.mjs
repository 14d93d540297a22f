// Builds src/ and styles/ into one script, one style sheet and the page that names them.
// `node build.mjs [FOLDER]`; without a folder, into ../built.  The same sources give the same bytes.
import { build } from "esbuild";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const sourceFolder = dirname(fileURLToPath(import.meta.url));
const targetFolder = resolve(process.argv[2] ?? join(sourceFolder, "..", "built"));

await rm(targetFolder, { recursive: true, force: true });
await mkdir(join(targetFolder, "assets"), { recursive: true });

const { metafile } = await build({
  absWorkingDir: sourceFolder,
  entryPoints: { app: "src/main.tsx", style: "styles/index.css" },
  outdir: join(targetFolder, "assets"),
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

const outputFiles = Object.keys(metafile.outputs).map((path) => basename(path));

/** Return the name, with its hash, of an output file. */
const outputName = (start, end) => {
  const name = outputFiles.find((file) => file.startsWith(start) && file.endsWith(end));
  if (!name) throw new Error(`no ${start}…${end} was built`);
  return name;
};

const page = await readFile(join(sourceFolder, "index.html"), "utf8");
await writeFile(
  join(targetFolder, "index.html"),
  page.replace("app.js", outputName("app-", ".js")).replace("style.css", outputName("style-", ".css")),
);
await writeFile(join(targetFolder, "assets", "icon.svg"), await readFile(join(sourceFolder, "icon.svg")));

// The licences of all packages that went into the bundle.
const packages = new Set();
for (const input of Object.keys(metafile.inputs)) {
  const match = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (match) packages.add(match[1]);
}

const notices = [];
for (const name of [...packages].sort()) {
  const folder = join(sourceFolder, "node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const text = await readFile(join(folder, "LICENSE"), "utf8");
  notices.push(`${name} ${version} (${license})\n\n${text.trim()}\n`);
}
await writeFile(
  join(targetFolder, "assets", "licences.txt"),
  `The dashboard is made with these packages.\n\n${notices.join(`\n${"-".repeat(78)}\n\n`)}`,
);
