// The Node library etcd3, which other people wrote, against holdfast: node main.mjs HOST:PORT,…
import assert from 'node:assert/strict';
import { Etcd3, EtcdLockFailedError, EtcdUserNotFoundError, isRecoverableError } from 'etcd3';

const hosts = process.argv[2].split(',');
const client = new Etcd3({ hosts });
const ns = client.namespace('node/');

async function keys() {
  await ns.put('a').value('1');
  assert.equal(await ns.get('a').string(), '1');
  assert.equal(await ns.get('none').string(), null);
  assert.equal((await ns.put('a').value('2').getPrevious()).value.toString(), '1');
  for (let n = 0; n < 20; n++) await ns.put(`list/${String(n).padStart(2, '0')}`).value(n);
  assert.equal(await ns.getAll().prefix('list/').count(), 20);
  assert.deepEqual(await ns.getAll().prefix('list/').sort('Key', 'Descend').limit(2).keys(), ['list/19', 'list/18']);
  assert.equal(Object.keys(await ns.getAll().prefix('list/').strings()).length, 20);
  const { deleted } = await ns.delete().prefix('list/');
  assert.equal(Number(deleted), 20);
  const then = await ns.if('a', 'Value', '==', '2').then(ns.put('a').value('3'), ns.get('a')).else(ns.get('a')).commit();
  assert.equal(then.succeeded, true);
  assert.equal(then.responses.length, 2);
  const otherwise = await ns.if('a', 'Create', '==', 0).then(ns.put('a').value('4')).commit();
  assert.equal(otherwise.succeeded, false);
  await ns.stm().transact(async (tx) => tx.put('a').value(Number(await tx.get('a').string()) + 1));
  assert.equal(await ns.get('a').string(), '4');
}

async function watches() {
  const seen = [];
  const watcher = await ns.watch().prefix('w/').withPreviousKV().create();
  const done = new Promise((resolve) => {
    watcher.on('data', (response) => {
      for (const event of response.events) {
        seen.push([event.type, event.kv.key.toString(), event.prev_kv ? event.prev_kv.value.toString() : null]);
        if (seen.length === 3) resolve();
      }
    });
  });
  await ns.put('w/1').value('x');
  await ns.put('w/1').value('y');
  await ns.delete().key('w/1');
  await done;
  assert.deepEqual(seen.map(([type]) => type), ['Put', 'Put', 'Delete']);
  assert.deepEqual(seen.map(([, , previous]) => previous), [null, 'x', 'y']);
  await watcher.cancel();
}

async function leases() {
  const lease = client.lease(5);
  await lease.put('node/leased').value('x');
  await lease.keepaliveOnce();
  assert.equal(await ns.get('leased').string(), 'x');
  await lease.revoke();
  assert.equal(await ns.get('leased').string(), null);
}

async function locks() {
  const lock = client.lock('node/lock').ttl(5);
  await lock.acquire();
  await assert.rejects(client.lock('node/lock').ttl(5).acquire(), EtcdLockFailedError);
  await lock.release();
  await client.lock('node/lock').do(async () => {});
  const election = client.election('node/election', 5);
  const campaign = election.campaign('me');
  await new Promise((resolve, reject) => campaign.on('elected', resolve).on('error', reject));
  assert.equal(await election.leader(), 'me');
  await campaign.resign();
}

async function users() {
  const role = client.role('reader');
  await role.create();
  await role.grant({ permission: 'Read', range: client.range({ prefix: 'node/' }) });
  const user = client.user('ann');
  await user.create('secret');
  await user.addRole(role);
  assert.deepEqual((await user.roles()).map((r) => r.name), ['reader']);
  const root = client.user('root');
  await root.create('root');
  await client.role('root').create();
  await root.addRole('root');
  await client.auth.authEnable();
  const asAnn = new Etcd3({ hosts, auth: { username: 'ann', password: 'secret' } });
  const asRoot = new Etcd3({ hosts, auth: { username: 'root', password: 'root' } });
  try {
    assert.equal(await asAnn.get('node/a').string(), '4');
    await assert.rejects(asAnn.put('node/a').value('no'), /permission denied/);
    await assert.rejects(asRoot.user('nobody').roles(), EtcdUserNotFoundError);
  } finally {
    await asRoot.auth.authDisable();
    asAnn.close();
    asRoot.close();
  }
}

assert.equal(isRecoverableError(new Error('x')), false);
for (const part of [keys, watches, leases, locks, users]) {
  await part();
  console.log(`${part.name}: ok`);
}
client.close();
