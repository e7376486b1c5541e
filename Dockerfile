# syntax=docker/dockerfile:1
# docker build -t paceline .    the gateway (and every other command)
# The agent, for GPU nodes, is built by deploy/agent.Dockerfile.

FROM node:24-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
# The dev dependency `node` is for machines with another Node; here it would be a second one.
RUN npm ci --no-audit --no-fund --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN node node_modules/typescript/bin/tsc -p tsconfig.build.json && npm prune --omit=dev --ignore-scripts

FROM node:24-bookworm-slim AS gateway
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /src/node_modules ./node_modules
COPY --from=build /src/dist ./dist
COPY package.json ./
COPY config ./config
# By number: Kubernetes cannot tell of a name that it is not root. It is `node` in this image.
USER 1000:1000
EXPOSE 8080 8081 8082
ENTRYPOINT ["node", "dist/main.js"]
CMD ["serve", "--config", "/etc/paceline/paceline.yaml"]
