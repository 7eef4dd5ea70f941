// Pings a web site again and again: METHOD says how, TARGET whom, INTERVAL how long to wait between, in milliseconds.
"use strict";

const https = require("https");

const { TARGET = "blog.sixeyed.com", METHOD = "HEAD", INTERVAL = "3000" } = process.env;

function ping() {
  const begun = Date.now();
  const request = https.request({ host: TARGET, method: METHOD, timeout: 10000 }, (response) => {
    response.resume();
    response.on("end", () => console.log(`${TARGET} answered ${response.statusCode} after ${Date.now() - begun} ms`));
  });
  request.on("timeout", () => request.destroy(new Error("no answer within 10 s")));
  request.on("error", (error) => console.log(`${TARGET} cannot be reached: ${error.message}`));
  request.end();
}

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => process.exit(0));
}

console.log(`pinging ${TARGET} with ${METHOD} every ${INTERVAL} ms`);
ping();
setInterval(ping, Number(INTERVAL));
