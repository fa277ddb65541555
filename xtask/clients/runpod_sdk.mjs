// RunPod's npm package: every call of an endpoint.
import { Report } from './report.mjs'

const report = new Report()
const { default: runpodSdk } = await report.client('runpod-sdk')
const sdk = runpodSdk('sim-key', { baseUrl: report.sim.runpod.runtime })
const endpoint = sdk.endpoint('sim-endpoint')

const job = await report.call('run', () => endpoint.run({ input: { sleep: 90, a: 1 } }), { check: (job) => job.id })
await report.call('status', () => endpoint.status(job.id), { check: (job) => job.started })
await report.call('statusSync', () => endpoint.statusSync(job.id), { check: (job) => job.output.a === 1 })
await report.call('runSync', () => endpoint.runSync({ input: { b: 2 } }), { check: (job) => job.succeeded && job.output.b === 2 })
const streamed = await endpoint.run({ input: { stream: 3 } })
const collect = async () => {
  const all = []
  for await (const chunk of endpoint.stream(streamed.id)) all.push(chunk)
  return all
}
await report.call('stream', collect, { check: (all) => all.length === 3 })
const endless = await endpoint.run({ input: { sleep: 600 } })
await report.call('cancel', () => endpoint.cancel(endless.id), { check: (job) => job.status === 'CANCELLED' })
await report.call('health', () => endpoint.health(), { check: (health) => health.jobs.completed >= 2 })
await report.call('purgeQueue', () => endpoint.purgeQueue(), { check: (answer) => answer.status === 'completed' })
const stranger = runpodSdk('nope', { baseUrl: report.sim.runpod.runtime }).endpoint('sim-endpoint')
await report.call('health (bad key)', () => stranger.health(), { refused: '401' })
const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(endpoint))
report.end(methods.filter((name) => name !== 'constructor'))
