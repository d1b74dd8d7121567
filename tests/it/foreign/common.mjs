// What both scripts need: where everything is, who asks, a person who logs in, and what is told to the test.

import { webcrypto } from 'node:crypto';

// Node 18, which is Debian 12's, has these under other names; the libraries want them here.
globalThis.crypto ??= webcrypto;
globalThis.CryptoKey ??= webcrypto.CryptoKey;

/** What the test says: addresses and clients. */
export const { gateway, issuer, machine, web, backend, asker } = JSON.parse(process.argv[2]);

export const redirectUri = `${gateway}/public/callback`;

/** The API behind the gateway. */
export const api = new URL(`${gateway}/grants/1`);

/** The gateway's endpoints, which take the place of the issuer's in its metadata. */
export const endpoints = {
  authorization_endpoint: `${gateway}/oauth/authorize`,
  token_endpoint: `${gateway}/oauth/token`,
  userinfo_endpoint: `${gateway}/oauth/userinfo`,
  revocation_endpoint: `${gateway}/oauth/revoke`,
  introspection_endpoint: `${gateway}/oauth/introspect`,
  jwks_uri: `${gateway}/oauth/.well-known/jwks.json`,
};

/** Logs in as a browser would: follows to the login page, sends its form. Returns where it is called back. */
export async function logIn(authorization) {
  const sentOn = await fetch(authorization, { redirect: 'manual' });
  const at = new URL(sentOn.headers.get('location'));
  if (sentOn.status !== 302 || !at.href.startsWith(issuer)) {
    throw new Error(`not sent on to the issuer: ${sentOn.status} ${await sentOn.text()}`);
  }
  const page = await (await fetch(at)).text();
  const form = new URLSearchParams({ action: 'continue' });
  for (const [input] of page.matchAll(/<input[^>]*>/g)) {
    form.set(/name="([^"]*)"/.exec(input)[1], /value="([^"]*)"/.exec(input)[1]);
  }
  const sent = await fetch(new URL('/login', at), { method: 'POST', body: form, redirect: 'manual' });
  return new URL(sent.headers.get('location'));
}

/** What a call is refused with, in the library's words. */
export async function refusal(call) {
  let got;
  try {
    got = await call;
  } catch (error) {
    const { code, status, error: oauth } = error;
    const challenge = Array.isArray(error.cause) ? error.cause[0] : undefined;
    return { code, status, error: oauth, scheme: challenge?.scheme, reason: challenge?.parameters.error };
  }
  throw new Error(`not refused: ${JSON.stringify(got)}`);
}

/** Tells the test what came, once all is done. */
export function tell(story) {
  process.stdout.write(JSON.stringify(story));
}
