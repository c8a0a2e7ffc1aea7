/** A page that shows the report of a dropped file: the page of `nnc report`, with data that are made here. */
import decoder from "../dist/nnr.wasm";
import { open, provideDecoder } from "../src/index.js";
import { report } from "../src/report.js";

const ESCAPED = /[<>&\u2028\u2029]/g;

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const status = element("status");
const drop = element("drop");
const frame = element<HTMLIFrameElement>("report");
const input = element<HTMLInputElement>("file");
const page = element("page").textContent!.replaceAll("<\\/script", "</script");

provideDecoder(decoder as Uint8Array<ArrayBuffer>);

function tell(text: string, wrong = false): void {
  status.textContent = text;
  status.className = wrong ? "wrong" : "";
}

async function show(file: File): Promise<void> {
  frame.hidden = true;
  tell(`Reading ${file.name} ...`);
  try {
    const opened = await open(file);
    const data = await report(opened, file.name, async (done, all) => {
      tell(`Decoding ${file.name}: ${done} of ${all} units`);
      await new Promise((drawn) => setTimeout(drawn));
    });
    const json = JSON.stringify(data).replace(ESCAPED, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
    frame.srcdoc = page.replace("{{data}}", () => json);
    frame.hidden = false;
    tell(`${file.name}: ${opened.tensors.size} tensors`);
  } catch (error) {
    tell(`${file.name}: ${error instanceof Error ? error.message : String(error)}`, true);
  }
}

function dropped(event: DragEvent): void {
  event.preventDefault();
  drop.classList.toggle("over", event.type === "dragover");
  const file = event.type === "drop" ? event.dataTransfer?.files[0] : undefined;
  if (file) void show(file);
}

for (const type of ["dragover", "dragleave", "drop"] as const) document.addEventListener(type, dropped);
input.addEventListener("change", () => input.files?.[0] && void show(input.files[0]));
