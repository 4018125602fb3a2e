import { render } from "preact";

import { start } from "./api/session";
import { App } from "./app";
import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/pages.css";

const root = document.getElementById("app");
if (root !== null) {
  void start().then(() => render(<App />, root));
}
