// RunPod's MCP server: every tool that it lists, called over stdio.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { Report } from './report.mjs'

const report = new Report()
const { control, runtime, graphql } = report.sim.runpod
const server = spawn(process.execPath, [`${report.packages}/node_modules/@runpod/mcp-server/dist/stdio.mjs`], {
  stdio: ['pipe', 'pipe', 'ignore'],
  env: {
    ...process.env, RUNPOD_API_KEY: 'sim-key', RUNPOD_API_BASE_URL: control, RUNPOD_SERVERLESS_API_URL: runtime,
    RUNPOD_PUBLIC_GRAPHQL_URL: graphql, RUNPOD_AUTHED_GRAPHQL_URL: graphql,
  },
})
const waiting = new Map()
createInterface({ input: server.stdout }).on('line', (line) => {
  const message = JSON.parse(line)
  waiting.get(message.id)?.(message)
})
let last = 0
const send = (message) => server.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
const ask = (method, params) => new Promise((resolve, reject) => {
  const id = ++last
  waiting.set(id, (answer) => (answer.error ? reject(new Error(answer.error.message)) : resolve(answer.result)))
  send({ id, method, params })
})
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
// What a tool says: its text, as JSON where it is.
const tool = async (name, args = {}) => {
  const result = await ask('tools/call', { name, arguments: args })
  const text = (result.content ?? []).map((part) => part.text ?? '').join('\n')
  if (result.isError) throw new Error(text)
  const from = text.search(/[{[]/)
  try { return JSON.parse(text.slice(from)) } catch { return text }
}
const call = (name, args, expected) => report.call(name, () => tool(name.split(' ')[0], args), expected)

await ask('initialize', { protocolVersion: '2024-11-05', capabilities: {}, clientInfo: { name: 'atlas', version: '0' } })
send({ method: 'notifications/initialized' })
const { tools } = await ask('tools/list', {})

const GPU = 'NVIDIA GeForce RTX 4090'
const ENDPOINT = { endpointId: 'sim-endpoint' }
await call('list-gpu-types')
await call('list-gpu-types (availability)', { include: ['AVAILABILITY'], product: ['POD'] })
await call('get-gpu-type', { id: GPU, include: ['AVAILABILITY'], product: ['POD'] })
await call('get-gpu-type (unknown)', { id: 'Nothing' }, { refused: '404' })
await call('list-cpu-types', { include: ['AVAILABILITY'], product: ['POD'] })
await call('get-cpu-type', { id: 'cpu3c' })
await call('list-data-centers', { include: ['GPU_AVAILABILITY'] })
await call('get-data-center', { id: 'EU-RO-1' })
await call('get-capacity', {})
await call('get-capacity (probe)', { cudaVersions: ['12.8'] })

const pod = await call('create-pod', { body: { name: 'mcp', image: 'x/y:1', gpu: { id: GPU, count: 1 }, disk: 20, ports: ['8000/http'] } })
await call('create-pod (no shape)', { body: { name: 'mcp', image: 'x/y:1' } }, { refused: 'exactly one of gpu or cpu' })
const podId = { id: pod?.id }
await call('list-pods', {})
for (let n = 0; n < 100 && (await tool('get-pod', podId)).status !== 'RUNNING'; n++) await sleep(200)
await call('get-pod', podId, { check: (pod) => pod.status === 'RUNNING' })
await call('stream-pod-logs', { podId: pod?.id, tail: 10, maxWaitMs: 500 })
await call('update-pod', { ...podId, body: { name: 'renamed' } }, { check: (pod) => pod.name === 'renamed' })
await call('pod-action', { ...podId, body: { action: 'stop' } })

const volume = await call('create-network-volume', { body: { name: 'v', size: 10, dataCenter: 'EU-RO-1' } })
await call('list-network-volumes')
await call('get-network-volume', { id: volume?.id })
await call('update-network-volume', { id: volume?.id, body: { size: 20 } })
await call('delete-network-volume', { id: volume?.id })
await call('delete-pod', podId)

const template = await call('create-template', { body: { name: 't', image: 'x/y:1', disk: 20, serverless: true } })
await call('list-templates')
await call('list-public-templates', { source: 'official' })
await call('get-template', { id: template?.id })
await call('update-template', { id: template?.id, body: { name: 'u' } })
const endpoint = await call('create-endpoint', {
  body: { name: 'e', type: 'QUEUE', templateId: template?.id, gpu: { pools: ['ADA_24'], count: 1 }, workers: { min: 0, max: 1 },
    scaling: { type: 'QUEUE_DELAY', queueDelay: 4 } },
})
const endpointId = { id: endpoint?.id }
await call('list-endpoints')
await call('get-endpoint', endpointId)
await call('update-endpoint', { ...endpointId, body: { workers: { max: 2 } } })
await call('set-endpoint-gpus', { endpointId: endpoint?.id, pools: ['ADA_24'] })
await call('list-endpoint-releases', endpointId)
await call('list-endpoint-workers', endpointId)
await call('list-endpoint-builds', endpointId)
await call('get-endpoint-build', { ...endpointId, buildId: 'none' }, { refused: '404' })
await call('delete-endpoint', endpointId)
await call('delete-template', { id: template?.id })

const registry = await call('create-registry', { body: { name: 'r', username: 'u', password: 'p' } })
await call('list-registries')
await call('get-registry', { id: registry?.id })
await call('delete-registry', { id: registry?.id })
const resource = 'arn:aws:ecr:eu-west-1:123456789012:repository/worker'
const delegation = await call('create-delegation', { body: { resource } })
await call('list-delegations')
await call('revoke-delegation', { id: delegation?.id })
await call('update-ssh-keys', { body: { keys: ['ssh-ed25519 AAAA me'] } })
await call('get-ssh-keys')
const cluster = await call('create-cluster', {
  body: { name: 'c', type: 'TRAINING', image: 'x/y:1', disk: 20, compute: { gpuTypeId: 'NVIDIA L4', gpuCountPerPod: 2, podCount: 2 } },
})
await call('list-clusters')
await call('get-cluster', { id: cluster?.id })
await call('list-cluster-pods', { id: cluster?.id })
await call('update-cluster', { id: cluster?.id, body: { name: 'd' } })
await call('delete-cluster', { id: cluster?.id })
for (const { name } of tools.filter(({ name }) => name.endsWith('billing'))) await call(name, { bucketSize: 'day' })

const busy = await tool('run-endpoint', { ...ENDPOINT, input: { sleep: 600 } })
let workers = []
for (let n = 0; n < 100 && !workers.length; n++) {
  workers = (await tool('list-endpoint-workers', { id: 'sim-endpoint' })).workers ?? []
  await sleep(100)
}
await call('stream-worker-logs', { ...ENDPOINT, workerId: workers[0]?.id, tail: 10, maxWaitMs: 500 })
await tool('cancel-job', { ...ENDPOINT, jobId: busy.id })
const job = await call('run-endpoint', { ...ENDPOINT, input: { a: 1 } })
await call('runsync-endpoint', { ...ENDPOINT, input: { b: 2 } })
await call('get-job-status', { ...ENDPOINT, jobId: job?.id, wait: 5000 })
const streamed = await tool('run-endpoint', { ...ENDPOINT, input: { stream: 2 } })
await call('stream-job', { ...ENDPOINT, jobId: streamed.id })
const endless = await tool('run-endpoint', { ...ENDPOINT, input: { sleep: 600 } })
await call('cancel-job', { ...ENDPOINT, jobId: endless.id })
const failing = await tool('run-endpoint', { ...ENDPOINT, input: { error: 'boom' } })
for (let n = 0; n < 100 && (await tool('get-job-status', { ...ENDPOINT, jobId: failing.id })).status !== 'FAILED'; n++) await sleep(200)
await call('retry-job', { ...ENDPOINT, jobId: failing.id })
await call('endpoint-health', ENDPOINT)
await call('purge-endpoint-queue', ENDPOINT)
await call('list-hub-repos', {})
await call('deploy-hub-repo', { repo: 'runpod-workers/worker-vllm' })
await call('list-public-endpoints', {})
server.stdin.end()
server.kill()
report.end(tools.map(({ name }) => name))
