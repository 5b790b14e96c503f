// clients.mjs SUBMISSION IMAPS CERTIFICATE PASSWORD
//
// Ann sends with nodemailer; Bob reads with imapflow: folders, special uses, headers, parts, search, flags, copy, move,
// append, IDLE. It prints "ok" when all was as it should be.

import assert from "node:assert/strict";
import crypto from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import { createRequire } from "node:module";

// The modules are where NODE_PATH says, which import does not read.
const require = createRequire(process.env.NODE_PATH + "/x");
const { ImapFlow } = require("imapflow");
const nodemailer = require("nodemailer");

const [submission, imaps, certificate, password] = process.argv.slice(2);
const ca = fs.readFileSync(certificate);
const split = (s) => ({ host: "localhost", port: Number(s.slice(s.lastIndexOf(":") + 1)) });

const transport = nodemailer.createTransport({
  ...split(submission), requireTLS: true, tls: { ca }, auth: { user: "ann@example.test", pass: password },
});
const blob = crypto.randomBytes(700_000);
const letter = {
  from: "앤 <ann@example.test>", to: "bob@example.test", subject: "노드 안녕", text: "본문\n", html: '<p>본문 <img src="cid:p"></p>',
  attachments: [{ filename: "자료 모음.bin", content: blob }, { filename: "p.png", content: blob.subarray(0, 999), cid: "p" }],
};
await transport.sendMail(letter);

const client = new ImapFlow({
  ...split(imaps), secure: true, tls: { ca }, auth: { user: "bob@example.test", pass: password }, logger: false, maxIdleTime: 60_000,
});
await client.connect();
const folders = await client.list({ statusQuery: { messages: true, unseen: true } });
for (const use of ["\\Sent", "\\Drafts", "\\Trash", "\\Junk", "\\Archive"]) {
  assert(folders.some((f) => f.specialUse === use), use);
}
await client.mailboxOpen("INBOX");
while (client.mailbox.exists < 1) {
  await once(client, "exists");
}
const found = await client.search({ subject: "노드", body: "본문" }, { uid: true });
assert.deepEqual(found, [1]);
const message = await client.fetchOne(1, { envelope: true, bodyStructure: true, flags: true, size: true, source: true, headers: ["message-id"] }, { uid: true });
assert.equal(message.envelope.subject, "노드 안녕");
assert.equal(message.envelope.from[0].name, "앤");
assert.equal(message.source.length, message.size);
const leaves = (node) => (node.childNodes ? node.childNodes.flatMap(leaves) : [node]);
const attached = leaves(message.bodyStructure).find((n) => n.type === "application/octet-stream");
const { meta, content } = await client.download(1, attached.part, { uid: true });
assert.equal(meta.filename, "자료 모음.bin");
const chunks = [];
for await (const chunk of content) {
  chunks.push(chunk);
}
assert(Buffer.concat(chunks).equals(blob), "the attachment has changed");

assert(await client.messageFlagsAdd(1, ["\\Seen", "$Label1"], { uid: true }));
assert((await client.fetchOne(1, { flags: true }, { uid: true })).flags.has("$Label1"));
const copied = await client.messageCopy(1, "Archive", { uid: true });
assert.equal(copied.uidMap.size, 1);
await client.mailboxCreate(["일", "2026"]);
const moved = await client.messageMove(1, "일.2026", { uid: true });
assert.equal(moved.uidMap.get(1), 1);
assert.equal((await client.status("일.2026", { messages: true })).messages, 1);
const kept = await client.append("Drafts", "Subject: draft\r\n\r\nx\r\n", ["\\Draft"], new Date(0));
assert.equal(kept.uid, 1);

// A letter that comes while the client idles is told at once.
const told = once(client, "exists");
const idling = client.idle();
await transport.sendMail({ ...letter, subject: "second" });
const [{ count }] = await told;
assert.equal(count, 1);
await client.noop(); // which ends the IDLE
await idling;
await client.messageDelete(2, { uid: true });
assert.equal((await client.status("INBOX", { messages: true })).messages, 0);
await client.mailboxDelete("일.2026");
await client.logout();
console.log("ok");
